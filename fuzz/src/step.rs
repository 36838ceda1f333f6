//! One request as the fuzzer writes it down, and as a seed is written down for it.

use arbitrary::{Arbitrary, Result, Unstructured};

/// More add time and nothing else: what depends on state needs a handful.
const MAX_STEPS: usize = 64;

/// Numbers from which a request is made. What they mean is up to its kind; most kinds use a few.
#[derive(Arbitrary, Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Which request: see [`crate::Kind`].
    pub kind: u8,
    /// Which of the nodes the server gave out; from [`ODD_NODE`] on, `number` itself.
    pub node: u8,
    pub other: u8,
    /// Which name of the dictionary; one that is not in it is the blob.
    pub name: u8,
    pub new_name: u8,
    pub size: u8,
    pub offset: u8,
    pub mode: u16,
    pub flags: u32,
    pub number: u64,
    pub who: u8,
    /// How the bytes of the request are broken, if they are.
    pub twist: u8,
    pub at: u8,
    pub blob_len: u8,
}

/// A request, with the bytes it carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub fields: Fields,
    pub blob: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    pub steps: Vec<Step>,
}

pub const ODD_NODE: u8 = 240;

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let fields = Fields::arbitrary(u)?;
        let len = usize::from(fields.blob_len).min(u.len());
        let blob = u.bytes(len)?.to_vec();
        Ok(Step { fields, blob })
    }
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < MAX_STEPS {
            steps.push(Step::arbitrary(u)?);
        }
        Ok(Input { steps })
    }
}

impl Input {
    /// The bytes that [`Input::arbitrary`] makes this of.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.steps.iter().flat_map(Step::to_bytes).collect()
    }
}

impl Step {
    fn to_bytes(&self) -> Vec<u8> {
        let Fields {
            kind,
            node,
            other,
            name,
            new_name,
            size,
            offset,
            mode,
            flags,
            number,
            who,
            twist,
            at,
            blob_len: _,
        } = self.fields;
        let blob_len = u8::try_from(self.blob.len()).expect("a blob is short");
        let mut bytes = vec![kind, node, other, name, new_name, size, offset];
        bytes.extend(mode.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend([who, twist, at, blob_len]);
        bytes.extend(&self.blob);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again() {
        let step = |kind, blob: &[u8]| Step {
            fields: Fields {
                kind,
                number: u64::MAX - 7,
                mode: 0o1755,
                blob_len: blob.len() as u8,
                ..Fields::default()
            },
            blob: blob.to_vec(),
        };
        let input = Input {
            steps: vec![step(1, b""), step(2, b"some bytes"), step(3, b"")],
        };
        let bytes = input.to_bytes();
        assert_eq!(
            Input::arbitrary_take_rest(Unstructured::new(&bytes)).unwrap(),
            input
        );
    }
}
