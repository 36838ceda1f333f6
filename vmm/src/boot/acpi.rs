//! The few ACPI tables a stock kernel cannot do without: how many processors there are, where the
//! PCI bus is, and how to switch off.
//!
//! Root pointer, XSDT, FADT, MADT and a small DSDT, one after the other. Everything else is found
//! without tables, and the FADT says so: no keyboard controller, no battery-backed clock, no VGA to probe for.

use acpi_tables::{
    Aml,
    aml::{
        AddressSpace, AddressSpaceCacheable as Cacheable, Device, EISAName, IO as Io, Name, Package,
        ResourceTemplate, ZERO,
    },
    fadt::{FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace as RegisterSpace, GAS},
    madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic},
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};

use crate::layout::{
    ACPI, HOLE_START, IO_APIC, KEYBOARD_PORT, KEYBOARD_PULSE_RESET, LOCAL_APIC, PM_CONTROL_BYTES,
    PM_CONTROL_PORT, PM_EVENT_BYTES, PM_EVENT_PORT,
};

const OEM: [u8; 6] = *b"COFFER";
const OEM_TABLE: [u8; 8] = *b"MICROVM ";
const OEM_REVISION: u32 = 1;
const DSDT_REVISION: u8 = 2;
const DSDT_HEADER_BYTES: u32 = 36;

/// The interrupt power management would use, if anything ever happened in it.
const SCI: u16 = 9;
/// What is not there, so that nobody probes for it.
const BOOT_NO_VGA: u16 = 1 << 2;
const BOOT_NO_CMOS: u16 = 1 << 5;
/// Tables start at addresses readers like.
const ALIGN: usize = 16;

/// Everything from [`ACPI`] on, for a machine of `processors`.
pub(super) fn tables(processors: u32) -> Vec<u8> {
    let mut area = Area {
        bytes: vec![0; Rsdp::len().next_multiple_of(ALIGN)],
    };
    let dsdt = area.add(&dsdt());
    let fadt = area.add(&fadt(dsdt));
    let madt = area.add(&madt(processors));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.add(&xsdt);
    let mut root = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut root);
    let mut bytes = area.bytes;
    bytes.splice(..root.len(), root);
    bytes
}

struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Returns the guest address of the table.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let at = self.bytes.len();
        table.to_aml_bytes(&mut self.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        ACPI + at as u64
    }
}

/// How to switch off (`\_S5`; the VMM takes any value), and the one bus there is with the window of its BARs.
fn dsdt() -> Sdt {
    let mut body = Vec::new();
    Name::new("_S5_".into(), &Package::new(vec![&5u8, &0u8])).to_aml_bytes(&mut body);
    let (buses, ports) = (
        AddressSpace::new_bus_number(0u16, 0u16),
        Io::new(0xcf8, 0xcf8, 1, 8),
    );
    let window = AddressSpace::new_memory(
        Cacheable::NotCacheable,
        true,
        HOLE_START as u32,
        IO_APIC - 1,
        None,
    );
    let resources = Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(vec![&buses, &ports, &window]),
    );
    let id = Name::new("_HID".into(), &EISAName::new("PNP0A03"));
    let number = Name::new("_UID".into(), &ZERO);
    Device::new("_SB_.PCI0".into(), vec![&id, &number, &resources]).to_aml_bytes(&mut body);
    let mut table = Sdt::new(
        *b"DSDT",
        DSDT_HEADER_BYTES,
        DSDT_REVISION,
        OEM,
        OEM_TABLE,
        OEM_REVISION,
    );
    table.append_slice(&body);
    table
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut table = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_32(dsdt as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    table.sci_int = SCI.into();
    table.pm1a_evt_blk = u32::from(PM_EVENT_PORT).into();
    table.pm1_evt_len = PM_EVENT_BYTES;
    table.pm1a_cnt_blk = u32::from(PM_CONTROL_PORT).into();
    table.pm1_cnt_len = PM_CONTROL_BYTES;
    table.iapc_boot_arch = (BOOT_NO_VGA | BOOT_NO_CMOS).into();
    table.reset_reg = GAS::new(
        RegisterSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        KEYBOARD_PORT.into(),
    );
    table.reset_value = KEYBOARD_PULSE_RESET;
    table.finalize()
}

fn madt(processors: u32) -> MADT {
    let controllers = LocalInterruptController::Address(LOCAL_APIC);
    let mut table = MADT::new(OEM, OEM_TABLE, OEM_REVISION, controllers);
    for id in 0..processors as u8 {
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(processors as u8, IO_APIC, 0));
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ACPI_MAX;

    fn sums_to_zero(bytes: &[u8]) -> bool {
        bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    #[test]
    fn every_table_is_where_its_pointer_says_and_sums_to_zero() {
        for processors in 1..=vmm_api::MAX_VCPUS {
            let bytes = tables(processors);
            assert!(bytes.len() as u64 <= ACPI_MAX);
            assert!(bytes.starts_with(b"RSD PTR ") && sums_to_zero(&bytes[..36]));
            let at = |address: u64| (address - ACPI) as usize;
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            let xsdt = at(long(24));
            let mut tables = vec![xsdt];
            tables.extend([at(long(xsdt + 36)), at(long(xsdt + 44))]);
            tables.push(at(word(tables[1] + 40).into()));
            let names: Vec<&[u8]> = tables.iter().map(|at| &bytes[*at..at + 4]).collect();
            assert_eq!(names, [b"XSDT", b"FACP", b"APIC", b"DSDT"]);
            for table in tables {
                assert!(sums_to_zero(&bytes[table..table + word(table + 4) as usize]));
            }
        }
    }
}
