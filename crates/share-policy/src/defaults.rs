//! What is hidden and protected unless a person says otherwise.

/// Keys and passwords of the host. A folder that holds them was rarely meant to be shared with them.
pub const DEFAULT_HIDDEN: &[&str] = &[
    // Private keys; `.ssh/rc` and `.ssh/config` also run commands.
    ".ssh",
    // Private keys.
    ".gnupg",
    // Keys to accounts.
    ".aws",
    // Certificates of clusters; `exec` in it runs commands.
    ".kube",
    // Passwords in plain text, for curl, git and others.
    ".netrc",
    ".git-credentials",
    // Tokens of registries.
    ".docker/config.json",
];

/// What a tool of the host runs, or takes as commands, without being asked again: the guest sees it and cannot
/// change it.
///
/// Not here, on purpose:
/// - `.git/config`: git in the guest could not add a remote or a branch. It can name commands, a folder of hooks
///   among them: a later issue looks at what is written there.
/// - `.husky/`: git runs it only if `.git/config` says so, and every `npm install` of such a project writes it.
/// - A file `.git` (worktrees, submodules): git writes it, and it can do no more than `.git/config`.
/// - `.git/worktrees/*/hooks`: git never looks there, a worktree has the hooks of its repository.
/// - `.gitmodules`: git takes no commands from it.
/// - `package.json`, `Makefile`, `build.rs`, `.pre-commit-config.yaml`, `.venv`, `node_modules`: the work itself.
///   Whoever builds, tests or commits what the guest wrote runs what the guest wrote.
/// - `.github/workflows`: not run on the host, and reviewed with the rest before it is pushed.
pub const DEFAULT_PROTECTED: &[&str] = &[
    // git runs hooks on commit, checkout, merge and push; with `*`, also those of bare repositories. `git init` must
    // be able to make the folder and copy its samples, which nobody runs.
    "*.git/hooks/*",
    "!*.git/hooks/*.sample",
    // Those of submodules. Their names may hold slashes, so at any depth.
    "*.git/modules/**/hooks/*",
    "!*.git/modules/**/hooks/*.sample",
    // Aliases, pagers, hooks and helpers for every repository.
    ".gitconfig",
    ".config/git",
    // Mercurial runs the hooks it finds here, in a repository its user owns.
    ".hg/{hgrc,hgrc-not-shared}",
    // Run on entering the directory. direnv asks after a change, older versions and imitations do not; mise trusts a
    // path, not what is in it.
    ".envrc",
    "{mise,.mise}{,.*}.toml",
    "{mise,.mise}/config{,.*}.toml",
    ".config/mise{,.*}.toml",
    ".config/mise",
    // Tasks that run when the folder opens, programs that settings name, servers that are started (mcp.json).
    ".vscode/{tasks,launch,settings,mcp}.json",
    "*.code-workspace",
    ".idea/",
    ".zed/",
    // `initializeCommand` runs on the host whenever the container is started.
    ".devcontainer.json",
    ".devcontainer/**/devcontainer.json",
    // Editors that run what they find in the current directory.
    ".{exrc,vimrc,gvimrc,nvimrc,nvim.lua}",
    ".dir-locals{,-2}.el",
    ".{emacs,emacs.el}",
    ".emacs.d/{init,early-init}.el",
    ".config/{nvim,emacs}",
    // Coding agents: servers they start, hooks they run, and what they may do without asking. The text of skills,
    // commands and agents carries hooks and permissions too.
    ".mcp.json",
    ".claude/settings*.json",
    ".claude/{hooks,agents,commands,skills}",
    ".cursor/{mcp,hooks,cli}.json",
    ".cursor/hooks",
    ".gemini/settings.json",
    ".codex/{config.toml,hooks.json,hooks}",
    "opencode.{json,jsonc}",
    ".opencode/{plugin,tool,command,agent}{,s}",
    // Shells, at start and at end.
    ".bashrc",
    ".bash_{profile,login,logout,aliases}",
    ".profile",
    ".{zshrc,zshenv,zprofile,zlogin,zlogout}",
    ".{kshrc,mkshrc}",
    ".{cshrc,tcshrc,login,logout}",
    ".inputrc",
    ".config/fish/{config.fish,conf.d,functions,completions}",
    ".config/nushell",
    ".config/powershell",
    // Sessions: run at login.
    ".{xinitrc,xprofile,xsession,xsessionrc,pam_environment}",
    ".config/{autostart,environment.d,systemd}",
    ".local/share/systemd",
    // Interpreters and debuggers that run what they find in the current directory.
    ".{Rprofile,irbrc,pryrc,pdbrc,ghci,octaverc,gdbinit,lldbinit,perldb}",
];

/// Names by which FAT, NTFS and servers of Windows find a file that no listing shows by them: `GIT-CR~1` is
/// `.git-credentials`, and FAT drops the dots at the end of `.ssh.`. Of what such a name is for the name says nothing, so
/// where there are some, none is seen: eight letters with a tilde and a number at their end, and three more at most.
pub(crate) const OTHER_NAMES: &[&str] = &[
    "{?,??,???,????,?????,??????}~[0-9]{,.?,.??,.???}",
    "{?,??,???,????,?????}~[0-9][0-9]{,.?,.??,.???}",
    "*.",
];

#[cfg(test)]
mod tests;
