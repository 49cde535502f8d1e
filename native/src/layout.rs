//! Where the entries of a frame are in its tar bytes, and their headers.
//!
//! This is `members` of `shared.frames.plan` and `header` of `shared.frames.tar_layout`, for entries
//! whose header is a single ustar block.

use crate::entry::{Entry, FRAME, Kind};
use crate::odd::Odd;
use std::borrow::Cow;
use std::ops::Range;

const BLOCK: usize = 512;
const END_OF_ARCHIVE: usize = 2 * BLOCK;
const NAME: usize = 100;
const PREFIX: usize = 155;
const NANOSECONDS: u64 = 1_000_000_000;

/// The position of one entry in a frame.
pub struct Member<'frame, 'line> {
    /// The entry.
    pub entry: &'frame Entry<'line>,
    /// Number of the entry among those that the frame spans.
    pub number: usize,
    /// Where its header is in the frame: nowhere, in a later block of a large file.
    pub header: Range<usize>,
    /// Where its content is in the frame.
    pub content: Range<usize>,
    /// Offset in the file of these bytes.
    pub offset: u64,
}

/// Return the members of the frame of `size` bytes that spans `entries`.
///
/// # Errors
/// [`Odd`] if an entry needs a pax header, or the entries are not those of such a frame.
pub fn members<'frame, 'line>(
    entries: &'frame [Entry<'line>],
    block: u64,
    size: usize,
) -> Result<Vec<Member<'frame, 'line>>, Odd> {
    let offset = block.checked_mul(FRAME).ok_or(Odd)?;
    let head = if block == 0 { BLOCK } else { 0 };
    let mut position = 0_usize;
    let mut found = Vec::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.kept) {
        if !entry.is_plain() {
            return Err(Odd);
        }
        let start = position.checked_add(head).ok_or(Odd)?;
        let left = entry.size.checked_sub(offset).ok_or(Odd)?;
        let length = usize::try_from(left.min(FRAME))?;
        let end = start.checked_add(length).ok_or(Odd)?;
        found.push(Member {
            entry,
            number,
            header: position..start,
            content: start..end,
            offset,
        });
        position = end.checked_next_multiple_of(BLOCK).ok_or(Odd)?;
    }
    let ends = [Some(position), position.checked_add(END_OF_ARCHIVE)];
    ends.contains(&Some(size)).then_some(found).ok_or(Odd)
}

/// Return the header of `entry`, which is plain.
///
/// # Errors
/// [`Odd`] if it is not.
pub fn header(entry: &Entry) -> Result<[u8; BLOCK], Odd> {
    let tar_name = tar_name(entry);
    let (name, prefix) = split(&tar_name).ok_or(Odd)?;
    let seconds = u64::try_from(entry.mtime_ns)? / NANOSECONDS;
    let kind: &[u8] = match entry.kind {
        Kind::File => b"0",
        Kind::Hardlink => b"1",
        Kind::Symlink => b"2",
        Kind::Folder => b"5",
    };
    let mut block = [0; BLOCK];
    put(&mut block, 0, name.as_bytes())?;
    put_octal(&mut block, 100, 7, entry.mode.into())?;
    put_octal(&mut block, 108, 7, entry.uid.into())?;
    put_octal(&mut block, 116, 7, entry.gid.into())?;
    put_octal(&mut block, 124, 11, entry.size)?;
    put_octal(&mut block, 136, 11, seconds)?;
    put(&mut block, 148, b"        ")?; // the checksum, while it is computed
    put(&mut block, 156, kind)?;
    put(&mut block, 157, entry.link.as_bytes())?;
    put(&mut block, 257, b"ustar\x0000")?;
    put(&mut block, 329, b"0000000\x000000000")?;
    put(&mut block, 345, prefix.as_bytes())?;
    let sum = block.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut block, 148, 6, sum)?;
    put(&mut block, 154, b"\0 ")?;
    Ok(block)
}

fn tar_name<'entry>(entry: &'entry Entry) -> Cow<'entry, str> {
    match entry.kind {
        Kind::Folder => Cow::Owned(format!("{}/", entry.path)),
        _ => Cow::Borrowed(&entry.path),
    }
}

/// Return the ustar fields name and prefix, or none if ustar cannot hold `path`.
fn split(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= NAME {
        return Some((path, ""));
    }
    let most = path.len().saturating_sub(1).min(PREFIX.saturating_add(1)); // not a folder's slash
    let cut = path.get(..most)?.rfind('/')?;
    let (prefix, name) = (path.get(..cut)?, path.get(cut..)?.strip_prefix('/')?);
    (!prefix.is_empty() && !name.is_empty() && name.len() <= NAME).then_some((name, prefix))
}

fn put(block: &mut [u8], start: usize, value: &[u8]) -> Result<(), Odd> {
    let field = block.get_mut(start..).ok_or(Odd)?;
    let field = field.get_mut(..value.len()).ok_or(Odd)?;
    field.copy_from_slice(value);
    Ok(())
}

fn put_octal(block: &mut [u8], start: usize, digits: usize, number: u64) -> Result<(), Odd> {
    let field = block.get_mut(start..).ok_or(Odd)?;
    let mut rest = number;
    for digit in field.get_mut(..digits).ok_or(Odd)?.iter_mut().rev() {
        *digit = b'0' | (rest & 7) as u8;
        rest >>= 3;
    }
    if rest == 0 { Ok(()) } else { Err(Odd) }
}
