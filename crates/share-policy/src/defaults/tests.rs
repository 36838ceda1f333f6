use super::*;
use crate::{Mode, PatternSet, RelPath, SharePolicy};

fn policy() -> SharePolicy {
    let hidden = PatternSet::parse(DEFAULT_HIDDEN).unwrap();
    let protected = PatternSet::parse(DEFAULT_PROTECTED).unwrap();
    SharePolicy::new(Mode::ReadWrite, hidden, protected).unwrap()
}

/// Every path as it is, and where a monorepo, a checkout within or a dotfiles folder would have it.
fn at_any_depth(path: &str) -> impl Iterator<Item = RelPath> {
    ["", "sub/", "a/very/deep/place/", ".hidden/"]
        .into_iter()
        .flat_map(move |above| {
            let path = format!("{above}{path}");
            [path.to_ascii_uppercase(), path]
        })
        .map(|path| RelPath::parse(path.as_bytes()).unwrap())
}

#[test]
fn keys_and_passwords_are_hidden_at_any_depth() {
    for path in [
        ".ssh",
        ".ssh/id_ed25519",
        ".gnupg/private-keys-v1.d/x",
        ".aws/credentials",
        ".kube/config",
        ".netrc",
        ".git-credentials",
        ".docker/config.json",
    ] {
        for path in at_any_depth(path) {
            assert!(policy().hides(&path), "{path:?}");
        }
    }
    for path in [
        ".docker",
        ".docker/other.json",
        "ssh",
        ".sshd",
        "netrc",
        ".aws-sam",
        "docs/.netrc.md",
    ] {
        for path in at_any_depth(path) {
            assert!(!policy().hides(&path), "{path:?}");
        }
    }
}

#[test]
fn what_the_host_runs_unasked_is_protected_at_any_depth() {
    for path in [
        ".git/hooks/pre-commit",
        ".git/hooks/new/x",
        ".git/hooks/pre-commit.sample.sh",
        "bare.git/hooks/update",
        ".git/modules/lib/hooks/post-checkout",
        ".git/modules/deps/lib/modules/inner/hooks/pre-push",
        ".gitconfig",
        ".config/git/config",
        ".hg/hgrc",
        ".envrc",
        "mise.toml",
        ".mise.local.toml",
        ".mise/config.toml",
        ".config/mise/config.toml",
        ".vscode/tasks.json",
        ".vscode/launch.json",
        ".vscode/settings.json",
        ".vscode/mcp.json",
        "my.code-workspace",
        ".idea",
        ".idea/workspace.xml",
        ".zed/tasks.json",
        ".devcontainer.json",
        ".devcontainer/devcontainer.json",
        ".devcontainer/gpu/devcontainer.json",
        ".exrc",
        ".nvim.lua",
        ".dir-locals.el",
        ".dir-locals-2.el",
        ".mcp.json",
        ".claude/settings.json",
        ".claude/settings.local.json",
        ".claude/hooks",
        ".claude/hooks/a.sh",
        ".claude/skills/x/SKILL.md",
        ".cursor/mcp.json",
        ".gemini/settings.json",
        ".codex/config.toml",
        "opencode.json",
        ".opencode/plugins/x.ts",
        ".bashrc",
        ".bash_profile",
        ".bash_login",
        ".profile",
        ".zshrc",
        ".zshenv",
        ".zprofile",
        ".zlogin",
        ".zlogout",
        ".bash_logout",
        ".kshrc",
        ".cshrc",
        ".tcshrc",
        ".login",
        ".config/fish/config.fish",
        ".config/fish/conf.d/x.fish",
        ".config/autostart/x.desktop",
        ".Rprofile",
        ".gdbinit",
    ] {
        for path in at_any_depth(path) {
            assert!(policy().protects(&path), "{path:?}");
        }
    }
}

#[test]
fn the_work_itself_stays_writable() {
    for path in [
        "src/main.rs",
        ".git",
        ".git/config",
        ".git/HEAD",
        ".git/index.lock",
        ".git/hooks",
        ".git/hooks/pre-commit.sample",
        ".git/objects/ab/cd",
        ".git/refs/heads/hooks/x",
        ".git/worktrees/w/HEAD",
        ".git/modules/lib/HEAD",
        ".git/modules/lib/hooks",
        ".git/modules/lib/hooks/update.sample",
        "bare.git/HEAD",
        "hooks/pre-commit",
        ".husky/pre-commit",
        ".husky/_/h",
        ".vscode",
        ".vscode/extensions.json",
        ".claude",
        ".claude/CLAUDE.md",
        ".gitignore",
        ".gitmodules",
        ".github/workflows/ci.yml",
        "package.json",
        "Makefile",
        ".env",
        ".config/app.toml",
        ".venv/bin/activate",
        "node_modules/.bin/x",
        "tasks.json",
        "promise.toml",
        ".cursor/rules/x.md",
    ] {
        for path in at_any_depth(path) {
            assert!(!policy().protects(&path), "{path:?}");
            assert!(!policy().hides(&path), "{path:?}");
        }
    }
    assert!(!policy().protects(&RelPath::root()));
}

#[test]
fn no_common_name_needs_the_slow_way() {
    for name in [
        "src",
        "main.rs",
        "node_modules",
        "index.js",
        "target",
        "README.md",
        ".gitignore",
        ".github",
        "größe",
    ] {
        assert!(!policy().may_leave_plain(name.as_bytes()), "{name}");
    }
    for name in [
        ".git",
        ".GIT",
        ".g\u{200c}it",
        "\u{feff}.git",
        ".envrc",
        "x.git",
        ".vscode",
        ".\u{df}h",
    ] {
        assert!(policy().may_leave_plain(name.as_bytes()), "{name}");
    }
}

#[test]
fn the_defaults_leave_room_for_a_persons_own_patterns() {
    assert!(DEFAULT_PROTECTED.len() <= crate::MAX_PATTERNS / 2);
    assert!(PatternSet::parse(DEFAULT_PROTECTED).unwrap().rules().len() <= crate::MAX_RULES / 4);
}
