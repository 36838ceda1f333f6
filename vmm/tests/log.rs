//! The process beside its log.

use std::{
    fs::File,
    process::{Command, Stdio},
};

#[test]
fn a_log_on_a_full_disk_changes_neither_what_is_said_nor_the_exit_code() {
    let output = Command::new(env!("CARGO_BIN_EXE_coffer-vmm"))
        .args(["--config", "/nonexistent"])
        .stderr(Stdio::from(
            File::options().write(true).open("/dev/full").unwrap(),
        ))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("failed") && said.contains("/nonexistent"), "{said}");
}
