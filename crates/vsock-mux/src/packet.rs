//! The packet header, as it lies in guest memory and as what it means.

use crate::{limits::MAX_PAYLOAD, refusal::Refusal};

pub const HEADER_LEN: usize = 44;

/// The host's address on every vsock.
pub(crate) const HOST_CID: u64 = 2;
const STREAM: u16 = 1;

/// One end of a connection, as the header spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    pub cid: u64,
    pub port: u32,
}

/// The header of a packet: copied from guest memory once, then this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub source: Address,
    pub target: Address,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut fields = Fields(bytes);
        let source_cid = fields.u64();
        let target_cid = fields.u64();
        let source_port = fields.u32();
        let target_port = fields.u32();
        Header {
            source: Address {
                cid: source_cid,
                port: source_port,
            },
            target: Address {
                cid: target_cid,
                port: target_port,
            },
            len: fields.u32(),
            kind: fields.u16(),
            op: fields.u16(),
            flags: fields.u32(),
            buf_alloc: fields.u32(),
            fwd_cnt: fields.u32(),
        }
    }

    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let fields: [&[u8]; 10] = [
            &self.source.cid.to_le_bytes(),
            &self.target.cid.to_le_bytes(),
            &self.source.port.to_le_bytes(),
            &self.target.port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        bytes
    }

    /// A packet of ours to the guest.
    pub(crate) fn to_guest(guest_cid: u64, pair: Pair, op: Op) -> Self {
        Header {
            source: Address {
                cid: HOST_CID,
                port: pair.host,
            },
            target: Address {
                cid: guest_cid,
                port: pair.guest,
            },
            kind: STREAM,
            len: op.payload_len(),
            op: op.code(),
            flags: op.flags(),
            ..Header::default()
        }
    }

    /// The reset that answers this packet, whoever it was meant for.
    pub(crate) fn reset(&self) -> Self {
        Header {
            source: self.target,
            target: self.source,
            kind: self.kind,
            op: Op::Reset.code(),
            ..Header::default()
        }
    }

    /// The connection the packet says it belongs to.
    pub fn pair(&self) -> Pair {
        Pair {
            guest: self.source.port,
            host: self.target.port,
        }
    }

    pub fn is_data(&self) -> bool {
        self.op == code::DATA
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.op == code::RESET
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// The ports of a connection, which name it: the guest has one CID, and so have we.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub guest: u32,
    pub host: u32,
}

impl Pair {
    /// The pair as one number. Never above `u32::MAX << 32`, as no connection has host port `u32::MAX`.
    pub fn token(self) -> u64 {
        u64::from(self.host) << 32 | u64::from(self.guest)
    }

    pub fn from_token(token: u64) -> Self {
        Pair {
            guest: token as u32,
            host: (token >> 32) as u32,
        }
    }
}

/// The directions a shutdown names, from the point of view of its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directions {
    /// Its sender will receive no more.
    pub(crate) receive: bool,
    /// Its sender will send no more.
    pub(crate) send: bool,
}

impl Directions {
    pub(crate) const BOTH: Directions = Directions {
        receive: true,
        send: true,
    };

    pub(crate) fn and(self, other: Directions) -> Directions {
        Directions {
            receive: self.receive || other.receive,
            send: self.send || other.send,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Request,
    Response,
    Reset,
    Shutdown(Directions),
    Data(u32),
    CreditUpdate,
    CreditRequest,
}

mod code {
    pub(super) const REQUEST: u16 = 1;
    pub(super) const RESPONSE: u16 = 2;
    pub(super) const RESET: u16 = 3;
    pub(super) const SHUTDOWN: u16 = 4;
    pub(super) const DATA: u16 = 5;
    pub(super) const CREDIT_UPDATE: u16 = 6;
    pub(super) const CREDIT_REQUEST: u16 = 7;
}

const SHUTDOWN_RECEIVE: u32 = 1;
const SHUTDOWN_SEND: u32 = 2;

impl Op {
    fn code(self) -> u16 {
        match self {
            Op::Request => code::REQUEST,
            Op::Response => code::RESPONSE,
            Op::Reset => code::RESET,
            Op::Shutdown(_) => code::SHUTDOWN,
            Op::Data(_) => code::DATA,
            Op::CreditUpdate => code::CREDIT_UPDATE,
            Op::CreditRequest => code::CREDIT_REQUEST,
        }
    }

    fn flags(self) -> u32 {
        match self {
            Op::Shutdown(directions) => {
                let receive = u32::from(directions.receive) * SHUTDOWN_RECEIVE;
                let send = u32::from(directions.send) * SHUTDOWN_SEND;
                receive | send
            }
            _ => 0,
        }
    }

    fn payload_len(self) -> u32 {
        match self {
            Op::Data(len) => len,
            _ => 0,
        }
    }
}

/// A packet from the guest that makes sense by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) pair: Pair,
    pub(crate) op: Op,
    pub(crate) buf_alloc: u32,
    pub(crate) fwd_cnt: u32,
}

impl Packet {
    /// `available` is how many payload bytes really follow the header.
    pub(crate) fn parse(header: &Header, guest_cid: u64, available: usize) -> Result<Self, Refusal> {
        if header.source.cid != guest_cid {
            return Err(Refusal::ForgedSource(header.source.cid));
        }
        if header.target.cid != HOST_CID {
            return Err(Refusal::NotTheHost(header.target.cid));
        }
        if header.kind != STREAM {
            return Err(Refusal::NotAStream(header.kind));
        }
        let op = parse_op(header)?;
        if header.len > MAX_PAYLOAD || header.len as usize > available {
            return Err(Refusal::Length {
                claimed: header.len,
                available,
            });
        }
        Ok(Packet {
            pair: header.pair(),
            op,
            buf_alloc: header.buf_alloc,
            fwd_cnt: header.fwd_cnt,
        })
    }
}

fn parse_op(header: &Header) -> Result<Op, Refusal> {
    let op = match header.op {
        code::REQUEST => Op::Request,
        code::RESPONSE => Op::Response,
        code::RESET => Op::Reset,
        code::SHUTDOWN => Op::Shutdown(parse_directions(header.flags)?),
        code::DATA => Op::Data(header.len),
        code::CREDIT_UPDATE => Op::CreditUpdate,
        code::CREDIT_REQUEST => Op::CreditRequest,
        other => return Err(Refusal::UnknownOp(other)),
    };
    if header.len != 0 && !matches!(op, Op::Data(_)) {
        return Err(Refusal::PayloadOnControl(header.op));
    }
    Ok(op)
}

fn parse_directions(flags: u32) -> Result<Directions, Refusal> {
    let directions = Directions {
        receive: flags & SHUTDOWN_RECEIVE != 0,
        send: flags & SHUTDOWN_SEND != 0,
    };
    if flags & !(SHUTDOWN_RECEIVE | SHUTDOWN_SEND) != 0 || directions == Directions::default() {
        return Err(Refusal::ShutdownFlags(flags));
    }
    Ok(directions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_survives_decoding_and_encoding(bytes: [u8; HEADER_LEN]) {
            prop_assert_eq!(Header::decode(&bytes).encode(), bytes);
        }

        #[test]
        fn a_pair_survives_being_a_token(guest: u32, host: u32) {
            let pair = Pair { guest, host };
            prop_assert_eq!(Pair::from_token(pair.token()), pair);
        }

        #[test]
        fn no_packet_claims_more_than_follows_it(bytes: [u8; HEADER_LEN], available in 0usize..100_000) {
            if let Ok(packet) = Packet::parse(&Header::decode(&bytes), 3, available) {
                prop_assert!(packet.op.payload_len() as usize <= available);
            }
        }
    }

    #[test]
    fn the_fields_lie_where_the_standard_puts_them() {
        let header = Header {
            source: Address { cid: 2, port: 1024 },
            target: Address { cid: 3, port: 7 },
            len: 5,
            kind: 1,
            op: 5,
            flags: 0,
            buf_alloc: 0x0004_0000,
            fwd_cnt: 9,
        };
        let bytes = header.encode();
        assert_eq!(bytes[0], 2);
        assert_eq!(bytes[8], 3);
        assert_eq!(bytes[16..18], [0, 4]);
        assert_eq!(bytes[20], 7);
        assert_eq!(bytes[24], 5);
        assert_eq!(bytes[28], 1);
        assert_eq!(bytes[30], 5);
        assert_eq!(bytes[36..40], [0, 0, 4, 0]);
        assert_eq!(bytes[40], 9);
    }
}
