//! Where the entries of a frame are in its tar bytes, and their headers.
//!
//! This is `members` of `shared.frames.plan` and `header` of `shared.frames.tar_layout`, for entries
//! without xattrs whose names are UTF-8.

use crate::entry::{Entry, FRAME, Kind};
use crate::odd::Odd;
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;

const BLOCK: usize = 512;
const END_OF_ARCHIVE: usize = 2 * BLOCK;
const NAME: usize = 100;
const PREFIX: usize = 155;
const SMALL_NUMBER: u64 = 1 << 21;
const LARGE_NUMBER: u64 = 1 << 33;
/// A second's.
pub const NANOSECONDS: i64 = 1_000_000_000;

/// The position of one entry in a frame.
pub struct Member<'frame, 'line> {
    /// The entry.
    pub entry: &'frame Entry<'line>,
    /// Number of the entry among those that the frame spans.
    pub number: usize,
    /// Where its header is in the frame.
    pub start: usize,
    /// Its header: empty in a later block of a large file.
    pub header: Vec<u8>,
    /// Where its content is in the frame.
    pub content: Range<usize>,
    /// Offset in the file of these bytes.
    pub offset: u64,
}

/// Return the members of the frame of `size` bytes that spans `entries`.
pub fn members<'frame, 'line>(
    entries: &'frame [Entry<'line>],
    block: u64,
    size: usize,
) -> Result<Vec<Member<'frame, 'line>>, Odd> {
    let offset = block.checked_mul(FRAME).ok_or(Odd)?;
    let mut start = 0_usize;
    let mut found = Vec::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.kept) {
        let header = if block == 0 { header(entry)? } else { vec![] };
        let content = start.checked_add(header.len()).ok_or(Odd)?;
        let left = entry.size.checked_sub(offset).ok_or(Odd)?;
        let length = usize::try_from(left.min(FRAME))?;
        let end = content.checked_add(length).ok_or(Odd)?;
        found.push(Member { entry, number, start, header, content: content..end, offset });
        start = end.checked_next_multiple_of(BLOCK).ok_or(Odd)?;
    }
    let ends = [Some(start), start.checked_add(END_OF_ARCHIVE)];
    ends.contains(&Some(size)).then_some(found).ok_or(Odd)
}

/// The values in a ustar block.
struct Fields<'entry> {
    name: &'entry [u8],
    prefix: &'entry [u8],
    /// Mode, uid, gid, size, and mtime in seconds.
    numbers: [u64; 5],
    kind: &'static [u8],
    link: &'entry [u8],
}

/// Return all header blocks of `entry`: its ustar block, after a pax header if needed.
pub fn header(entry: &Entry) -> Result<Vec<u8>, Odd> {
    let path = tar_name(entry);
    let split = split(&path);
    let is_short_link = entry.link.len() <= NAME && entry.link.is_ascii();
    let seconds = entry.mtime_ns.div_euclid(NANOSECONDS);
    let uid = usual(entry.uid.into(), SMALL_NUMBER);
    let gid = usual(entry.gid.into(), SMALL_NUMBER);
    let size = usual(entry.size, LARGE_NUMBER);
    let time = u64::try_from(seconds).map_or(Err(0), |time| usual(time, LARGE_NUMBER));
    let records = [
        split.is_none().then(|| record("path", &path)),
        (!is_short_link).then(|| record("linkpath", &entry.link)),
        size.is_err().then(|| record("size", &entry.size)),
        time.is_err().then(|| record("mtime", &seconds)),
        uid.is_err().then(|| record("uid", &entry.uid)),
        gid.is_err().then(|| record("gid", &entry.gid)),
    ];
    let records: String = records.into_iter().flatten().collect();
    let mut whole = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        whole.extend(ustar(&Fields {
            name: b"././@PaxHeader",
            prefix: b"",
            numbers: [0o644, 0, 0, u64::try_from(records.len())?, 0],
            kind: b"x",
            link: b"",
        })?);
        whole.extend(records.as_bytes());
        let padded = whole.len().checked_next_multiple_of(BLOCK).ok_or(Odd)?;
        whole.resize(padded, 0);
    }
    let (name, prefix) = split.unwrap_or((&path, ""));
    let either = |number: Result<u64, u64>| number.unwrap_or_else(|zero| zero);
    whole.extend(ustar(&Fields {
        name: start_of(name),
        prefix: prefix.as_bytes(),
        numbers: [entry.mode.into(), either(uid), either(gid), either(size), either(time)],
        kind: match entry.kind {
            Kind::File => b"0",
            Kind::Hardlink => b"1",
            Kind::Symlink => b"2",
            Kind::Folder => b"5",
        },
        link: start_of(&entry.link),
    })?);
    Ok(whole)
}

/// Return `number`; as an error, return the zero that replaces it if ustar cannot represent it.
fn usual(number: u64, limit: u64) -> Result<u64, u64> {
    if number < limit { Ok(number) } else { Err(0) }
}

/// Return as many bytes of a name as ustar holds.
fn start_of(name: &str) -> &[u8] {
    name.as_bytes().get(..NAME).unwrap_or(name.as_bytes())
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

/// Return the pax record `length key=value newline`, whose length includes its own digits.
fn record(key: &str, value: &impl Display) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = String::new();
    for _ in 0..3 {
        length = length.len().saturating_add(rest.len()).to_string();
    }
    length + &rest
}

fn ustar(fields: &Fields) -> Result<[u8; BLOCK], Odd> {
    let [mode, uid, gid, size, seconds] = fields.numbers;
    let mut block = [0; BLOCK];
    put(&mut block, 0, fields.name)?;
    put_octal(&mut block, 100, 7, mode)?;
    put_octal(&mut block, 108, 7, uid)?;
    put_octal(&mut block, 116, 7, gid)?;
    put_octal(&mut block, 124, 11, size)?;
    put_octal(&mut block, 136, 11, seconds)?;
    put(&mut block, 148, b"        ")?; // the checksum, while it is computed
    put(&mut block, 156, fields.kind)?;
    put(&mut block, 157, fields.link)?;
    put(&mut block, 257, b"ustar\x0000")?;
    put(&mut block, 329, b"0000000\x000000000")?;
    put(&mut block, 345, fields.prefix)?;
    let sum = block.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut block, 148, 6, sum)?;
    put(&mut block, 154, b"\0 ")?;
    Ok(block)
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
