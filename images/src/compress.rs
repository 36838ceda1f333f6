//! Finds out how a stream is compressed by its first bytes, and undoes it.

use std::io::{self, BufRead, BufReader, Read};

/// The largest window `zstd --ultra --long=27` uses, which is what decoders accept by default: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// What `xz -9` needs to be undone is 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
const BUFFER_BYTES: usize = 128 * 1024;

/// A stream as it was before compression: gzip, zstd, xz, or not compressed at all.
pub(crate) fn decoded<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    let start = stream.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(stream))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd_decoder(stream)?)
    } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Box::new(xz_decoder(stream)?)
    } else {
        Box::new(stream)
    })
}

pub(crate) fn zstd_decoder<'a, R: BufRead>(stream: R) -> io::Result<zstd::stream::read::Decoder<'a, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

pub(crate) fn xz_decoder<R: BufRead>(stream: R) -> io::Result<liblzma::bufread::XzDecoder<R>> {
    let decoder = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
    Ok(liblzma::bufread::XzDecoder::new_stream(stream, decoder))
}

/// Reads to the end, which must come within `limit` bytes.
pub(crate) fn read_bounded(stream: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn gzip_zstd_xz_and_plain_streams_are_told_apart() {
        let text = b"the same text in four forms";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text).unwrap();
        let forms = [
            text.to_vec(),
            gzip.finish().unwrap(),
            zstd::encode_all(&text[..], 1).unwrap(),
            xz.finish().unwrap(),
        ];
        for form in forms {
            assert_eq!(read_bounded(decoded(&form[..]).unwrap(), 100).unwrap(), text);
        }
    }

    #[test]
    fn a_stream_that_grows_over_its_limit_is_an_error() {
        let zeros = zstd::encode_all(&vec![0; 1 << 20][..], 1).unwrap();
        assert!(read_bounded(decoded(&zeros[..]).unwrap(), 1000).is_err());
    }
}
