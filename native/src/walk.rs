//! The usual entries below a folder, as lines of a manifest: those of `shared.tree.walk`.

use crate::entry::{Entry, Kind};
use crate::folders::{FOLDER, reopen};
use crate::odd::{Odd, without_lock};
use crate::pack::{FILE, nanoseconds};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, RawDir, SeekFrom, flistxattr, fstat, openat, readlinkat, seek, statat,
};
use rustix::io::Errno;
use std::borrow::Cow;
use std::io::Write;
use std::mem::MaybeUninit;

/// Bytes of lines after which a batch ends.
const BATCH: usize = 64 << 10;
/// Most levels and bytes of a path; Python judges deeper and longer ones.
const MOST_LEVELS: usize = 200;
const MOST_BYTES: usize = 3000;
const SECTOR: u64 = 512;

/// A walk that Python continues at each odd entry.
#[pyclass]
pub struct Walk {
    levels: Vec<Level>,
    ends: Ends,
    inside: bool,
}

struct Level {
    folder: OwnedFd,
    device: u64,
    above: String,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// For each pattern of what is left out: whether it is about the whole path, and how all that
/// matches it begins and ends. Python has the last word about what begins and ends so.
type Ends = Vec<(bool, Vec<u8>, Vec<u8>)>;

/// The descriptor of the folder of an odd entry, its path with a slash, and the entry's name.
type OddEntry<'py> = (i32, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    odd: Option<(i32, Vec<u8>, Vec<u8>)>,
    is_last: bool,
}

/// Begin a walk of what is below the open `folder`, whose path with a slash is `above`.
///
/// With `inside`, targets, holes and xattrs are read.
#[pyfunction]
pub fn walk(py: Python<'_>, folder: u32, above: &[u8], ends: Ends, inside: bool) -> Option<Walk> {
    without_lock(py, || {
        let above = usual(above)?.to_owned();
        let folder = reopen(folder)?;
        let device = fstat(&folder)?.st_dev;
        let levels = vec![Level::list(folder, device, above)?];
        Ok(Walk { levels, ends, inside })
    })
}

#[pymethods]
impl Walk {
    /// Return the lines of the next entries, the odd one after them, and whether there are no more.
    ///
    /// The odd entry is skipped, with all that is below it.
    fn batch<'py>(
        &mut self,
        py: Python<'py>,
    ) -> Option<(Bound<'py, PyBytes>, Option<OddEntry<'py>>, bool)> {
        let batch = without_lock(py, || Ok(self.fill()))?;
        let bytes = |some: &[u8]| PyBytes::new(py, some);
        let odd = batch.odd.as_ref();
        let odd = odd.map(|(folder, above, name)| (*folder, bytes(above), bytes(name)));
        Some((bytes(&batch.lines), odd, batch.is_last))
    }
}

impl Walk {
    fn fill(&mut self) -> Batch {
        let mut batch = Batch::default();
        while batch.lines.len() < BATCH {
            let Some(level) = self.levels.last_mut() else {
                batch.is_last = true;
                break;
            };
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            if let Ok(below) = level.look(&name, &self.ends, self.inside, &mut batch.lines) {
                self.levels.extend(below);
            } else {
                let above = level.above.clone().into_bytes();
                batch.odd = Some((level.folder.as_raw_fd(), above, name));
                break;
            }
        }
        batch
    }
}

impl Level {
    /// Read all names in the open `folder`.
    fn list(folder: OwnedFd, device: u64, above: String) -> Result<Self, Odd> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut names = Vec::new();
        let mut found = RawDir::new(folder.as_fd(), &mut buffer);
        while let Some(entry) = found.next() {
            let name = entry?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort_unstable();
        let names = names.into_iter();
        Ok(Self { folder, device, above, names })
    }

    /// Add the entry to `lines`, and return the level below it if it is a folder.
    ///
    /// As in Python, the status is read first, then the content. So a change in between has a later
    /// time than the entry.
    fn look(
        &self,
        name: &[u8],
        ends: &Ends,
        inside: bool,
        lines: &mut Vec<u8>,
    ) -> Result<Option<Self>, Odd> {
        let name = usual(name)?;
        let path = format!("{}{name}", self.above);
        let levels = path.bytes().filter(|byte| *byte == b'/').count();
        if path.len() > MOST_BYTES || levels >= MOST_LEVELS || may_be_excluded(ends, &path, name) {
            return Err(Odd);
        }
        let info = statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(info.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            _ => return Err(Odd),
        };
        if info.st_dev != self.device || (kind != Kind::Folder && info.st_nlink > 1) {
            return Err(Odd); // Python notes the devices, and the names of such files
        }
        let size = if kind == Kind::File { u64::try_from(info.st_size)? } else { 0 };
        let mut entry = Entry {
            path: Cow::Borrowed(&path),
            kind,
            mode: info.st_mode & 0o7777,
            uid: info.st_uid,
            gid: info.st_gid,
            mtime_ns: nanoseconds(info.st_mtime, info.st_mtime_nsec).ok_or(Odd)?,
            ctime_ns: nanoseconds(info.st_ctime, info.st_ctime_nsec).ok_or(Odd)?,
            inode: info.st_ino,
            size,
            data: None,
            link: Cow::Borrowed(""),
            kept: false,
        };
        let mut below = None;
        match kind {
            Kind::Folder => {
                let folder = openat(&self.folder, name, FOLDER, Mode::empty())?;
                if inside {
                    check_no_xattrs(folder.as_fd())?;
                }
                below = Some(Self::list(folder, self.device, format!("{path}/"))?);
            }
            Kind::File if inside => {
                let file = openat(&self.folder, name, FILE, Mode::empty())?;
                let on_disk = u64::try_from(info.st_blocks)?.saturating_mul(SECTOR);
                if on_disk < size {
                    check_no_holes(file.as_fd(), size)?;
                }
                check_no_xattrs(file.as_fd())?;
            }
            Kind::Symlink if inside => {
                let target = readlinkat(&self.folder, name, Vec::new())?;
                entry.link = Cow::Owned(usual(target.as_bytes())?.to_owned());
            }
            _ => {}
        }
        format(&entry, lines).map_err(|_| Odd)?;
        Ok(below)
    }
}

/// Add the line of `entry` to `lines`, as `shared.tree.manifest.format_line` writes it.
fn format(entry: &Entry, lines: &mut Vec<u8>) -> std::io::Result<()> {
    let kind = match entry.kind {
        Kind::Folder => "dir",
        Kind::File => "file",
        Kind::Symlink => "symlink",
        Kind::Hardlink => "hardlink",
    };
    write!(
        lines,
        r#"{{"kind":"{kind}","mode":{},"uid":{},"gid":{},"mtime_ns":{},"ctime_ns":{},"inode":{}"#,
        entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.ctime_ns, entry.inode
    )?;
    if entry.size > 0 {
        write!(lines, r#","size":{}"#, entry.size)?;
    }
    write!(lines, r#","path":"{}""#, entry.path)?;
    if !entry.link.is_empty() {
        write!(lines, r#","link":"{}""#, entry.link)?;
    }
    lines.extend(b"}\n");
    Ok(())
}

/// Return a name or path that is the same in a line: UTF-8, without anything that JSON escapes.
fn usual(name: &[u8]) -> Result<&str, Odd> {
    let is_escaped = name.iter().any(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'));
    str::from_utf8(name).ok().filter(|_| !is_escaped).ok_or(Odd)
}

fn may_be_excluded(ends: &Ends, path: &str, name: &str) -> bool {
    let below = path.split_once('/').map_or("", |(_, below)| below);
    ends.iter().any(|(is_whole, head, tail)| {
        let judged = if *is_whole { below } else { name }.as_bytes();
        judged.starts_with(head) && judged.ends_with(tail)
    })
}

fn check_no_xattrs(file: BorrowedFd<'_>) -> Result<(), Odd> {
    let mut buffer = [0_u8; 1024];
    let length = match flistxattr(file, buffer.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let names = buffer.get(..length).ok_or(Odd)?;
    let is_content = |name: &[u8]| name.starts_with(b"user.");
    (!names.split(|byte| *byte == 0).any(is_content)).then_some(()).ok_or(Odd)
}

/// Make sure that a file is not sparse, although it takes less space than it has bytes.
fn check_no_holes(file: BorrowedFd<'_>, size: u64) -> Result<(), Odd> {
    let starts = seek(file, SeekFrom::Data(0))?;
    let ends = seek(file, SeekFrom::Hole(0))?;
    if (starts, ends) == (0, size) { Ok(()) } else { Err(Odd) }
}
