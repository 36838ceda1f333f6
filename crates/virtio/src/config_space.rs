//! Reading a device's configuration space, at whatever offset and length the driver chose.

/// Fills `data` from `config` at `offset`; what lies outside reads as zero.
pub(crate) fn read(config: &[u8], offset: usize, data: &mut [u8]) {
    data.fill(0);
    let Some(found) = config.get(offset..) else {
        return;
    };
    for (byte, value) in data.iter_mut().zip(found) {
        *byte = *value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_the_configuration_reads_as_zero() {
        let mut data = [0xff; 4];
        read(&[1, 2, 3], 1, &mut data);
        assert_eq!(data, [2, 3, 0, 0]);
        for offset in [3, 4, usize::MAX] {
            data.fill(0xff);
            read(&[1, 2, 3], offset, &mut data);
            assert_eq!(data, [0; 4]);
        }
    }
}
