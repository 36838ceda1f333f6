//! The 256 bytes of PCI configuration space: a type 0 header, one BAR, a list of capabilities.

/// What configuration mechanism 1 can address for one function.
const CONFIG_SPACE_BYTES: usize = 256;

const VENDOR: usize = 0x00;
const DEVICE: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const BAR0: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM: usize = 0x2e;
const CAPABILITIES: usize = 0x34;

const STATUS_HAS_CAPABILITIES: u16 = 1 << 4;
/// Memory decoding and bus mastering, as firmware would leave them for a device it has set up.
const COMMAND_MEMORY_AND_MASTER: u16 = 0b110;
/// Memory, bus master and interrupt disable are all a driver may change.
const COMMAND_WRITABLE: u16 = 0b100_0000_0110;
/// The first capability follows the header.
const FIRST_CAPABILITY: usize = 0x40;

/// Who a function is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) subsystem: u16,
    /// Base class, sub-class, interface.
    pub(crate) class: [u8; 3],
    pub(crate) revision: u8,
}

/// Registers with a mask of the bits that a write changes.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; CONFIG_SPACE_BYTES],
    writable: [u8; CONFIG_SPACE_BYTES],
    end: usize,
    last_capability: usize,
}

impl ConfigSpace {
    pub(crate) fn new(identity: Identity) -> Self {
        let mut space = ConfigSpace {
            bytes: [0; CONFIG_SPACE_BYTES],
            writable: [0; CONFIG_SPACE_BYTES],
            end: FIRST_CAPABILITY,
            last_capability: 0,
        };
        let [base, sub, interface] = identity.class;
        space.put(VENDOR, &identity.vendor.to_le_bytes());
        space.put(DEVICE, &identity.device.to_le_bytes());
        space.put(REVISION, &[identity.revision]);
        space.put(CLASS, &[interface, sub, base]);
        space.put(SUBSYSTEM_VENDOR, &identity.vendor.to_le_bytes());
        space.put(SUBSYSTEM, &identity.subsystem.to_le_bytes());
        space
    }

    /// A 32-bit memory BAR of `size` bytes, a power of two, at `address`.
    pub(crate) fn set_bar0(&mut self, address: u32, size: u32) {
        self.put(BAR0, &address.to_le_bytes());
        self.allow(BAR0, &(!(size - 1)).to_le_bytes());
        self.put(COMMAND, &COMMAND_MEMORY_AND_MASTER.to_le_bytes());
        self.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
    }

    /// Appends a capability: its id, then `body` after the two bytes of id and next pointer. Returns where.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let at = self.end;
        let link = if self.last_capability == 0 {
            CAPABILITIES
        } else {
            self.last_capability + 1
        };
        self.put(link, &[u8::try_from(at).unwrap_or(0)]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.put(STATUS, &STATUS_HAS_CAPABILITIES.to_le_bytes());
        self.last_capability = at;
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// Lets the driver change these bits.
    pub(crate) fn allow(&mut self, at: usize, mask: &[u8]) {
        if let Some(target) = self.writable.get_mut(at..at + mask.len()) {
            target.copy_from_slice(mask);
        }
    }

    /// Bytes outside the space read as ones, like a bus nobody answers on.
    pub(crate) fn read(&self, at: usize, data: &mut [u8]) {
        for (offset, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(at + offset).copied().unwrap_or(0xff);
        }
    }

    pub(crate) fn write(&mut self, at: usize, data: &[u8]) {
        for (offset, byte) in data.iter().enumerate() {
            if let (Some(old), Some(mask)) = (self.bytes.get_mut(at + offset), self.writable.get(at + offset))
            {
                *old = (*old & !mask) | (byte & mask);
            }
        }
    }

    pub(crate) fn u16_at(&self, at: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    fn put(&mut self, at: usize, data: &[u8]) {
        if let Some(target) = self.bytes.get_mut(at..at + data.len()) {
            target.copy_from_slice(data);
        }
    }
}
