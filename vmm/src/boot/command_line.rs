//! The kernel's command line: what this machine is, so that the kernel does not search for what is not there.

/// Each with what it saves or why it must be.
const ALWAYS: &[&str] = &[
    // The console is a log; what is below a warning would cost an exit per character.
    "console=ttyS0",
    "quiet",
    "8250.nr_uarts=1",
    // A panic ends the machine at once, through the reset line we watch.
    "panic=-1",
    "reboot=k",
    // One bus, no firmware behind it, no option ROMs.
    "pci=conf1,norom",
    // The timer, the clock and the TSC are KVM's and true; testing them takes the longest of all.
    "no_timer_check",
    "tsc=reliable",
    "cryptomgr.notests",
    "swiotlb=noforce",
    "random.trust_cpu=on",
    // The agent is the first and only init.
    "rdinit=/init",
];

/// The machine's words, then the image's.
pub(crate) fn build(extra: &[String]) -> String {
    let mut words: Vec<&str> = ALWAYS.to_vec();
    words.extend(extra.iter().map(String::as_str));
    words.join(" ")
}
