//! `coffer image`: the images there are, and making them.

use std::{path::PathBuf, time::Instant};

use clap::{Args, Subcommand};
use images::{
    BuildRequest, Image, ImageName, ImportRequest, KernelFile, PackageName, Progress, Selection, Staleness,
    Store, Suite,
};
use serde_json::{Value, json};

use super::machine::beside_us;
use crate::{Paths, Result, console, error::Context, image::AGENT_PROGRAM, output, shape::Bytes};

const STDOUT: &str = "standard output cannot be written";

/// Make, list and remove images
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    Build(BuildArguments),
    Import(ImportArguments),
    Ls(ListArguments),
    Rm(RemoveArguments),
}

/// Make an image from Debian packages
#[derive(Debug, Args)]
struct BuildArguments {
    /// Name of the image [default: default]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Debian suite to take packages from [default: trixie]
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
    /// Debian package to install beside those every image has; repeatable
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,
    #[command(flatten)]
    kernel: KernelArguments,
    /// Do only what is needed to make an image that is missing or older than this coffer
    #[arg(long)]
    if_stale: bool,
    /// Say nothing
    #[arg(long, short)]
    quiet: bool,
}

/// Make an image from a root file system
#[derive(Debug, Args)]
struct ImportArguments {
    /// A root directory, a tar, or an OCI layout in a directory or a tar
    #[arg(value_name = "SRC")]
    from: PathBuf,
    /// Name of the image [default: the name of SRC]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    kernel: KernelArguments,
    /// Say nothing
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct KernelArguments {
    /// Kernel to use, an ELF vmlinux or a bzImage [default: Debian's]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// The kernel's own /lib/modules/VERSION, for one that does not have everything built in
    #[arg(long, value_name = "PATH", requires = "kernel")]
    modules: Option<PathBuf>,
}

/// List images
#[derive(Debug, Args)]
struct ListArguments {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Remove images
#[derive(Debug, Args)]
struct RemoveArguments {
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

pub(super) fn image(paths: &Paths, arguments: Arguments) -> Result<u8> {
    let store = Store::new(paths.images());
    match arguments.command {
        ImageCommand::Build(arguments) => build(&store, arguments)?,
        ImageCommand::Import(arguments) => import(&store, arguments)?,
        ImageCommand::Ls(arguments) => list(&store, arguments.json)?,
        ImageCommand::Rm(arguments) => {
            for name in &arguments.names {
                store.remove(&ImageName::parse(name)?)?;
            }
        }
    }
    Ok(0)
}

impl KernelArguments {
    fn file(self) -> Option<KernelFile> {
        let modules = self.modules;
        self.kernel.map(|path| KernelFile { path, modules })
    }
}

fn build(store: &Store, arguments: BuildArguments) -> Result<()> {
    let name = arguments
        .name
        .as_deref()
        .map(ImageName::parse)
        .transpose()?
        .unwrap_or_default();
    let suite = arguments
        .suite
        .as_deref()
        .map(Suite::parse)
        .transpose()?
        .unwrap_or_default();
    let packages = arguments
        .packages
        .iter()
        .map(|name| PackageName::parse(name))
        .collect::<Result<_, _>>()?;
    let request = BuildRequest {
        name,
        selection: Selection { suite, packages },
        kernel: arguments.kernel.file(),
        agent: beside_us(AGENT_PROGRAM)?,
    };
    let mut steps = Steps::new(&request.name, arguments.quiet);
    if arguments.if_stale {
        match store.staleness(&request)? {
            Staleness::Fresh => return Ok(()),
            Staleness::AgentChanged => {
                steps.say("packing this version's agent");
                store.refresh(&request.name, &request.agent)?;
                return Ok(());
            }
            Staleness::RecipeChanged | Staleness::Missing => {}
        }
    }
    let image = store.build(&request, &mut |progress| steps.progress(progress))?;
    steps.done(&image);
    Ok(())
}

fn import(store: &Store, arguments: ImportArguments) -> Result<()> {
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => arguments
            .from
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase(),
    };
    let name = ImageName::parse(&name)?;
    let mut steps = Steps::new(&name, arguments.quiet);
    let request = ImportRequest {
        name,
        from: arguments.from,
        kernel: arguments.kernel.file(),
        agent: beside_us(AGENT_PROGRAM)?,
    };
    let image = store.import(&request, &mut |progress| steps.progress(progress))?;
    steps.done(&image);
    Ok(())
}

/// Steps as they come: on a terminal one line that changes, else a line for each.
struct Steps {
    name: ImageName,
    quiet: bool,
    terminal: Option<output::StatusLine>,
    step: String,
    start: Instant,
}

impl Steps {
    fn new(name: &ImageName, quiet: bool) -> Self {
        let terminal = output::stderr_is_terminal().then(output::StatusLine::default);
        Steps {
            name: name.clone(),
            quiet,
            terminal,
            step: String::new(),
            start: Instant::now(),
        }
    }

    fn progress(&mut self, progress: Progress) {
        /// What is left of an 80 column terminal after the step.
        const SHOWN: usize = 40;
        match progress {
            Progress::Step { name: "done", .. } => {}
            Progress::Step { name, fraction } => self.say(&format!("{:3.0} %  {name}", fraction * 100.0)),
            Progress::Line(line) => {
                let seconds = self.start.elapsed().as_secs();
                let line: String = console::safe(line.as_bytes()).chars().take(SHOWN).collect();
                if let Some(status) = self.terminal.as_mut().filter(|_| !self.quiet) {
                    status.show(&format!("{} … {seconds} s  {line}", self.step));
                }
            }
            _ => {}
        }
    }

    fn say(&mut self, step: &str) {
        self.step = format!("image {}: {step}", self.name);
        match &mut self.terminal {
            _ if self.quiet => {}
            Some(status) => status.show(&format!("{} …", self.step)),
            None => output::note(&self.step),
        }
    }

    fn done(&mut self, image: &Image) {
        self.terminal = None;
        if !self.quiet {
            let size = Bytes(bytes(image) >> 20 << 20);
            let seconds = self.start.elapsed().as_secs();
            output::note(&format!(
                "image {} is ready: {size}, made in {seconds} s",
                self.name
            ));
        }
    }
}

fn bytes(image: &Image) -> u64 {
    let manifest = image.manifest();
    [&manifest.kernel, &manifest.initramfs, &manifest.rootfs]
        .iter()
        .map(|part| part.size)
        .sum()
}

fn list(store: &Store, as_json: bool) -> Result<()> {
    let images = store.list()?;
    if as_json {
        let rows: Vec<Value> = images.iter().map(|(name, image)| json_row(name, image)).collect();
        return output::json(&rows).act(STDOUT);
    }
    let rows: Vec<Vec<String>> = images.iter().map(|(name, image)| text_row(name, image)).collect();
    output::table(&["NAME", "KERNEL", "SIZE", "PACKAGES"], &rows).act(STDOUT)
}

fn text_row(name: &ImageName, image: &images::Result<Image>) -> Vec<String> {
    match image {
        Ok(image) => vec![
            name.to_string(),
            image.manifest().kernel_version.clone(),
            Bytes(bytes(image) >> 20 << 20).to_string(),
            image.manifest().packages.len().to_string(),
        ],
        Err(error) => vec![name.to_string(), format!("unusable: {error}")],
    }
}

fn json_row(name: &ImageName, image: &images::Result<Image>) -> Value {
    match image {
        Ok(image) => json!({ "name": name, "bytes": bytes(image), "manifest": image.manifest() }),
        Err(error) => json!({ "name": name, "error": error.to_string() }),
    }
}
