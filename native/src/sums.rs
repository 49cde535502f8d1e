//! Lines of `SHA256SUMS`, from lines of a manifest: `shared.frames.sha256sums`. And digests of pieces.

use crate::entry::{Kind, parse};
use crate::odd::{Odd, without_lock};
use crate::pack::{PIECE, Sha};
use pyo3::{Bound, Python, types::PyBytes};
use sha2::{Digest, Sha256};

const DIGEST: usize = 32;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Return the lines of `SHA256SUMS` for the files among the entries of `lines`.
///
/// `digests` has 32 bytes for each entry.
///
/// None for a file without a digest (zeros), and for a path that has to be escaped.
#[pyo3::pyfunction]
pub fn sums<'py>(py: Python<'py>, lines: &[u8], digests: &[u8]) -> Option<Bound<'py, PyBytes>> {
    without_lock(py, || format(lines, digests)).map(|text| PyBytes::new(py, &text))
}

/// Return the digests of all pieces of a block's content: `shared.frames.pieces.piece_digests`.
#[pyo3::pyfunction]
pub fn pieces<'py>(py: Python<'py>, content: &[u8]) -> Option<Vec<Bound<'py, PyBytes>>> {
    let digest = |piece| -> Sha { Sha256::digest(piece).into() };
    let digests: Vec<_> = without_lock(py, || Ok(content.chunks(PIECE).map(digest).collect()))?;
    Some(digests.iter().map(|digest| PyBytes::new(py, digest)).collect())
}

fn format(lines: &[u8], digests: &[u8]) -> Result<Vec<u8>, Odd> {
    let entries = parse(lines)?;
    let (digests, rest) = digests.as_chunks::<DIGEST>();
    if digests.len() != entries.len() || !rest.is_empty() {
        return Err(Odd);
    }
    let mut text = Vec::with_capacity(lines.len());
    for (entry, digest) in entries.iter().zip(digests) {
        if entry.kind != Kind::File {
            continue;
        }
        let path = entry.path.as_bytes();
        let is_escaped = path.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'));
        if is_escaped || digest == &[0; DIGEST] {
            return Err(Odd);
        }
        for byte in digest {
            text.extend(DIGITS.get(usize::from(byte >> 4)));
            text.extend(DIGITS.get(usize::from(byte & 15)));
        }
        text.extend_from_slice(b"  ");
        text.extend_from_slice(path);
        text.push(b'\n');
    }
    Ok(text)
}
