//! A frame, built from the source files: `agent.frames.builder` and `agent.source.file_reader`.

use crate::entry::{Entry, Kind, parse};
use crate::folders::{FOLDER, Folders, reopen};
use crate::layout::{Member, members};
use crate::odd::{Odd, without_lock};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::{pread, retry_on_intr};
use sha2::{Digest, Sha256};

/// How a file is opened.
pub const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// Most bytes of a frame without xattrs, with some to spare.
const MOST: usize = 5 << 20;
/// Bytes of a piece of a block (`shared.frames.pieces`).
pub const PIECE: usize = 32 << 10;

/// The tar bytes, the digest of the digests of all contents, and the digest of each whole file with
/// its number among the entries of the frame.
type Packed<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Vec<(usize, Bound<'py, PyBytes>)>);

/// A digest of some bytes.
pub type Sha = [u8; 32];

/// Build the frame of the entries in `lines`.
///
/// `base` contains the library. `place` is the library's name there, and its path in the entries.
/// `frame` is the number of a large file's block, and the bytes of the frame.
#[pyfunction]
pub fn pack<'py>(
    py: Python<'py>,
    base: u32,
    place: (PyBackedBytes, PyBackedBytes),
    lines: &[u8],
    frame: (u64, usize),
    is_cold: bool,
) -> PyResult<Option<Packed<'py>>> {
    let ((name, top), (block, size)) = (place, frame);
    if size > MOST {
        return Ok(None);
    }
    let mut filled = None;
    let tar = PyBytes::new_with(py, size, |tar| {
        filled = without_lock(py, || {
            let entries = parse(lines)?;
            let source = Source::open(base, &name, &top, is_cold)?;
            source.fill(&members(&entries, block, size)?, tar)
        });
        Ok(())
    })?;
    Ok(filled.map(|(tag, files)| {
        let files = files.into_iter();
        let files = files.map(|(number, digest)| (number, PyBytes::new(py, &digest)));
        (tar, PyBytes::new(py, &tag), files.collect())
    }))
}

/// Add the digest of `content` to `tag`, or those of a block's pieces (`shared.frames.pieces`).
///
/// Return the digest of a small file.
pub fn add_digests(tag: &mut Sha256, content: &[u8], is_block: bool) -> Option<Sha> {
    if is_block {
        content.chunks(PIECE).for_each(|piece| tag.update(Sha256::digest(piece)));
        return None;
    }
    let digest = Sha256::digest(content);
    tag.update(digest);
    Some(digest.into())
}

/// The library that is read.
struct Source<'place> {
    library: OwnedFd,
    top: &'place str,
    is_cold: bool,
}

impl<'place> Source<'place> {
    fn open(base: u32, name: &[u8], top: &'place [u8], is_cold: bool) -> Result<Self, Odd> {
        Ok(Self {
            library: openat(reopen(base)?, name, FOLDER, Mode::empty())?,
            top: str::from_utf8(top).map_err(|_| Odd)?,
            is_cold,
        })
    }

    /// Fill `tar`, which is all zeros.
    fn fill(&self, members: &[Member], tar: &mut [u8]) -> Result<(Sha, Vec<(usize, Sha)>), Odd> {
        let mut folders = Folders::new(self.library.as_fd(), false);
        let mut tag = Sha256::new();
        let mut files = Vec::new();
        for member in members {
            let head = tar.get_mut(member.start..member.content.start).ok_or(Odd)?;
            head.copy_from_slice(&member.header); // both have the same length
            if member.entry.kind != Kind::File {
                continue;
            }
            let content = tar.get_mut(member.content.clone()).ok_or(Odd)?;
            self.read(&mut folders, member, content)?;
            let digest = add_digests(&mut tag, content, member.entry.is_large());
            files.extend(digest.map(|digest| (member.number, digest)));
        }
        Ok((tag.finalize().into(), files))
    }

    /// Fill `into` from a file that is as it was scanned, or still complete in a live snapshot.
    fn read(&self, folders: &mut Folders, member: &Member, into: &mut [u8]) -> Result<(), Odd> {
        let entry = member.entry;
        let (folder, name) = entry.split();
        let folder = folder.strip_prefix(self.top).ok_or(Odd)?;
        let folder =
            if folder.is_empty() { folder } else { folder.strip_prefix('/').ok_or(Odd)? };
        let file = openat(folders.folder(folder)?, name, FILE, Mode::empty())?;
        self.check(&fstat(&file)?, entry)?;
        let mut left = into;
        let mut offset = member.offset;
        while !left.is_empty() {
            let count = retry_on_intr(|| pread(&file, &mut *left, offset))?;
            if count == 0 {
                return Err(Odd); // the file has become shorter
            }
            left = left.get_mut(count..).ok_or(Odd)?;
            offset = offset.checked_add(u64::try_from(count)?).ok_or(Odd)?;
        }
        self.check(&fstat(&file)?, entry)
    }

    fn check(&self, now: &Stat, entry: &Entry) -> Result<(), Odd> {
        let is_usual = if self.is_cold {
            u64::try_from(now.st_size) == Ok(entry.size)
                && nanoseconds(now.st_mtime, now.st_mtime_nsec) == Some(entry.mtime_ns)
                && nanoseconds(now.st_ctime, now.st_ctime_nsec) == Some(entry.ctime_ns)
                && now.st_ino == entry.inode
        } else {
            FileType::from_raw_mode(now.st_mode) == FileType::RegularFile
                && now.st_ino == entry.inode
        };
        is_usual.then_some(()).ok_or(Odd)
    }
}

/// Return a time in nanoseconds from 1970.
pub fn nanoseconds(seconds: i64, rest: u64) -> Option<i64> {
    seconds.checked_mul(1_000_000_000)?.checked_add(i64::try_from(rest).ok()?)
}
