use std::process::ExitCode;

fn main() -> ExitCode {
    host_bridge::cli::main()
}
