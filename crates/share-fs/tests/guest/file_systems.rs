//! File systems to try everything on. Those on loop devices take a second each: with `COFFER_FILE_SYSTEMS=all`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use crate::world::is_root;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whatever the temporary directory of this machine is on.
    Here,
    Tmpfs,
    Overlay,
    Ext4,
    Xfs,
    Btrfs,
    /// Without links, permissions, users' attributes; not among those that everything is tried on.
    Fat,
}

const ALL: [Kind; 6] = [
    Kind::Here,
    Kind::Tmpfs,
    Kind::Overlay,
    Kind::Ext4,
    Kind::Xfs,
    Kind::Btrfs,
];
/// What XFS takes at least.
const IMAGE_BYTES: u64 = 320 << 20;

/// Runs `test` in an empty folder of every file system there is, and says why it leaves one out.
pub(crate) fn each_file_system(test: impl Fn(&Path)) {
    for kind in ALL {
        match FileSystem::make(kind) {
            Ok(made) => {
                println!("on {kind:?}");
                test(made.path());
            }
            Err(reason) => println!("not on {kind:?}: {reason}"),
        }
    }
}

/// Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct FileSystem {
    mounted: Vec<PathBuf>,
    path: PathBuf,
    _home: TempDir,
}

impl FileSystem {
    pub(crate) fn make(kind: Kind) -> Result<Self, String> {
        let home = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut made = FileSystem {
            mounted: Vec::new(),
            path: home.path().to_owned(),
            _home: home,
        };
        if kind == Kind::Here {
            return Ok(made);
        }
        if !is_root() {
            return Err("only root can mount it".into());
        }
        match kind {
            Kind::Here => {}
            Kind::Tmpfs => made.tmpfs("strictatime")?,
            Kind::Overlay => made.overlay()?,
            Kind::Ext4 => made.image(&["mkfs.ext4", "-q"], "ext4")?,
            Kind::Xfs => made.image(&["mkfs.xfs", "-q"], "xfs")?,
            Kind::Btrfs => made.image(&["mkfs.btrfs", "-q"], "btrfs")?,
            Kind::Fat => made.image(&["mkfs.vfat"], "vfat")?,
        }
        Ok(made)
    }

    /// A small one.
    pub(crate) fn tmpfs_of(bytes: u64) -> Result<Self, String> {
        FileSystem::tmpfs_with(&format!("size={bytes}"))
    }

    pub(crate) fn tmpfs_with(options: &str) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can mount it".into());
        }
        let home = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut made = FileSystem {
            mounted: Vec::new(),
            path: home.path().to_owned(),
            _home: home,
        };
        made.tmpfs(options)?;
        Ok(made)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is `lower/` below the folder before anybody else sees it lies in the lower layer.
    pub(crate) fn overlay_with(fill: impl FnOnce(&Path)) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can mount it".into());
        }
        let home = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut made = FileSystem {
            mounted: Vec::new(),
            path: home.path().to_owned(),
            _home: home,
        };
        made.tmpfs("mode=0755")?;
        fs::create_dir(made.path.join("lower")).map_err(|error| error.to_string())?;
        fill(&made.path.join("lower"));
        made.overlay_here()?;
        Ok(made)
    }

    fn tmpfs(&mut self, options: &str) -> Result<(), String> {
        let (flags, data) = match options {
            "strictatime" => (MountFlags::STRICTATIME, ""),
            data => (MountFlags::empty(), data),
        };
        self.mount("tmpfs", c"tmpfs", flags, data)
    }

    fn overlay(&mut self) -> Result<(), String> {
        self.tmpfs("mode=0755")?;
        fs::create_dir(self.path.join("lower")).map_err(|error| error.to_string())?;
        self.overlay_here()
    }

    fn overlay_here(&mut self) -> Result<(), String> {
        for name in ["upper", "work", "merged"] {
            fs::create_dir(self.path.join(name)).map_err(|error| error.to_string())?;
        }
        let base = self.path.display();
        let data = format!("lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work");
        self.path = self.path.join("merged");
        self.mount("overlay", c"overlay", MountFlags::empty(), &data)
    }

    fn image(&mut self, make: &[&str], kind: &str) -> Result<(), String> {
        if std::env::var("COFFER_FILE_SYSTEMS").as_deref() != Ok("all") {
            return Err("COFFER_FILE_SYSTEMS=all is not set".into());
        }
        let image = self.path.join("image");
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
        run(Command::new(make[0]).args(&make[1..]).arg(&image))?;
        let point = self.path.join("mounted");
        fs::create_dir(&point).map_err(|error| error.to_string())?;
        run(Command::new("mount")
            .args(["-t", kind, "-o", "loop"])
            .arg(&image)
            .arg(&point))?;
        self.mounted.push(point.clone());
        self.path = point;
        Ok(())
    }

    fn mount(
        &mut self,
        source: &str,
        kind: &std::ffi::CStr,
        flags: MountFlags,
        data: &str,
    ) -> Result<(), String> {
        let data = std::ffi::CString::new(data).map_err(|error| error.to_string())?;
        rustix::mount::mount(source, &self.path, kind, flags, Some(data.as_c_str()))
            .map_err(|error| format!("mount: {error}"))?;
        self.mounted.push(self.path.clone());
        Ok(())
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        while let Some(point) = self.mounted.pop() {
            let _ = rustix::mount::unmount(&point, UnmountFlags::DETACH);
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
