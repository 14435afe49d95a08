//! Content codings (RFC 9110, 8.4.1) of cached bodies.

use std::io::{self, Write as _};

use bytes::Bytes;

use crate::error::{Error, Result};

/// How the bytes of a body are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// gzip (RFC 1952).
    Gzip,
    /// zlib (RFC 1950), which HTTP calls deflate.
    Deflate,
}

/// Each level is the knee of its curve on page bodies: more costs several times the CPU for a few percent.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: i32 = 5;
/// Base-2 logarithm of brotli's window; 1 MiB is more than a page has.
const BROTLI_WINDOW: i32 = 20;

impl Encoding {
    /// Every coding but identity, in the server's order of preference.
    pub const COMPRESSED: [Self; 4] = [Self::Zstd, Self::Brotli, Self::Gzip, Self::Deflate];

    /// The name in `Content-Encoding`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// Codes `body` on the blocking pool: a page takes about a millisecond, too long for a thread that serves hits.
pub(super) async fn compress(encoding: Encoding, body: Bytes) -> Result<Bytes> {
    let coded = tokio::task::spawn_blocking(move || compress_now(encoding, &body)).await.map_err(Error::internal)?;
    // Without their spare capacity: zstd reserves more than the body, and an entry is weighed by its length.
    coded.map(|coded| Bytes::from(coded.into_boxed_slice())).map_err(Error::internal)
}

fn compress_now(encoding: Encoding, body: &[u8]) -> io::Result<Vec<u8>> {
    match encoding {
        Encoding::Identity => Ok(body.to_vec()),
        Encoding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
        Encoding::Brotli => {
            let parameters =
                brotli::enc::BrotliEncoderParams { quality: BROTLI_QUALITY, lgwin: BROTLI_WINDOW, ..Default::default() };
            let mut coded = Vec::new();
            brotli::BrotliCompress(&mut &*body, &mut coded, &parameters)?;
            Ok(coded)
        }
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body)?;
            encoder.finish()
        }
        Encoding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn every_coding_decodes_to_the_body() {
        let body = "{\"name\":\"terrace\"}".repeat(500).into_bytes();
        for encoding in Encoding::COMPRESSED {
            let coded = compress_now(encoding, &body).unwrap();
            let mut decoded = Vec::new();
            match encoding {
                Encoding::Identity => decoded.clone_from(&coded),
                Encoding::Zstd => decoded = zstd::bulk::decompress(&coded, body.len()).unwrap(),
                Encoding::Brotli => brotli::BrotliDecompress(&mut &coded[..], &mut decoded).unwrap(),
                Encoding::Gzip => drop(flate2::read::GzDecoder::new(&coded[..]).read_to_end(&mut decoded).unwrap()),
                Encoding::Deflate => drop(flate2::read::ZlibDecoder::new(&coded[..]).read_to_end(&mut decoded).unwrap()),
            }
            assert_eq!(decoded, body, "{encoding:?}");
            assert!(coded.len() * 5 < body.len(), "{encoding:?}");
        }
    }

    #[tokio::test]
    async fn a_coded_body_takes_no_more_memory_than_it_is_long() {
        let body = Bytes::from("{\"name\":\"terrace\"}".repeat(500));
        for encoding in Encoding::COMPRESSED {
            let coded = compress(encoding, body.clone()).await.unwrap();
            let length = coded.len();
            assert_eq!(coded.try_into_mut().unwrap().capacity(), length, "{encoding:?}");
        }
    }
}
