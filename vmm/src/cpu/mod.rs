//! A virtual CPU before its first instruction: what it says it is, and its registers.

mod cpuid;
mod registers;

use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VcpuFd};
use vm_memory::GuestAddress;

pub(crate) use registers::write_page_tables;

/// Makes `vcpu` number `index` of `count`; the first starts at `entry`, the others wait to be started by it.
pub(crate) fn prepare(
    vcpu: &VcpuFd,
    index: u32,
    count: u32,
    supported: &CpuId,
    entry: Option<GuestAddress>,
) -> Result<(), CpuError> {
    let mut ids = supported.clone();
    cpuid::describe(&mut ids, index, count);
    vcpu.set_cpuid2(&ids).map_err(|source| CpuError {
        act: "set CPUID",
        source,
    })?;
    registers::set_msrs(vcpu)?;
    registers::set_fpu(vcpu)?;
    registers::set_local_interrupts(vcpu)?;
    if let Some(entry) = entry {
        registers::set_boot_state(vcpu, entry)?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {act} of a virtual CPU")]
pub(crate) struct CpuError {
    pub(crate) act: &'static str,
    pub(crate) source: kvm_ioctls::Error,
}

impl CpuError {
    pub(crate) fn new(act: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| CpuError { act, source }
    }
}

/// The processors' features KVM can give a guest here.
pub(crate) fn supported_by(kvm: &Kvm) -> Result<CpuId, CpuError> {
    cpuid::supported(kvm).map_err(CpuError::new("read supported CPUID"))
}
