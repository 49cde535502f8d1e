//! Entries of a manifest, from its lines (docs/protocol.md).

use crate::odd::Odd;
use serde::Deserialize;
use std::borrow::Cow;

/// Bytes of a frame, and of a block of a large file (`shared.frames.plan`).
pub const FRAME: u64 = 4 * 1024 * 1024;
const MAX_LINE: usize = 1024 * 1024;
const MAX_MODE: u32 = 0o7777;
const MAX_SIZE: u64 = 1 << 62;

/// Type of an entry.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "&str")] // an enum of serde's own would also be read from an object
pub enum Kind {
    /// A directory.
    Folder,
    /// A regular file, under its first name.
    File,
    /// A symbolic link.
    Symlink,
    /// A further name of a file.
    Hardlink,
}

impl TryFrom<&str> for Kind {
    type Error = &'static str;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        match name {
            "dir" => Ok(Self::Folder),
            "file" => Ok(Self::File),
            "symlink" => Ok(Self::Symlink),
            "hardlink" => Ok(Self::Hardlink),
            _ => Err("no kind of entry"),
        }
    }
}

/// One entry. A name that is not UTF-8 and an extended attribute are [`Odd`]: Python handles them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<'line> {
    /// Path that begins with the library's own name.
    #[serde(borrow)]
    pub path: Cow<'line, str>,
    /// Type of the entry.
    pub kind: Kind,
    /// Permission bits: 0 to 0o7777.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Time of the last modification, in nanoseconds from 1970.
    pub mtime_ns: i64,
    /// Time of the last change of content or attributes, in nanoseconds from 1970.
    pub ctime_ns: i64,
    /// Number of the inode.
    pub inode: u64,
    /// Bytes of a file's content; 0 for every other type.
    #[serde(default)]
    pub size: u64,
    /// Bytes of a sparse file that are not in holes; none if the file has no holes.
    #[serde(default)]
    pub data: Option<u64>,
    /// Target of a symlink, or the earlier path of the file that a hard link names.
    #[serde(borrow, default)]
    pub link: Cow<'line, str>,
    /// Whether the entry is in no frame, because the delta's base has it.
    #[serde(default)]
    pub kept: bool,
}

impl Entry<'_> {
    /// Return the path of the folder that contains the entry, and the entry's name in it.
    pub fn split(&self) -> (&str, &str) {
        self.path.rsplit_once('/').unwrap_or(("", &self.path))
    }

    /// Return whether the entry has frames of its own.
    pub fn is_large(&self) -> bool {
        self.size > FRAME
    }

    /// Return whether both look alike from outside: without opening them.
    pub fn looks_like(&self, other: &Self) -> bool {
        self.path == other.path
            && self.kind == other.kind
            && self.mode == other.mode
            && (self.uid, self.gid) == (other.uid, other.gid)
            && (self.mtime_ns, self.ctime_ns) == (other.mtime_ns, other.ctime_ns)
            && (self.inode, self.size) == (other.inode, other.size)
    }

    fn is_sound(&self) -> bool {
        let has_content = self.size > 0 || self.data.is_some();
        self.mode <= MAX_MODE
            && self.uid < u32::MAX
            && self.gid < u32::MAX
            && self.size < MAX_SIZE
            && (self.kind == Kind::File || !has_content)
            && self.data.is_none_or(|data| data <= self.size)
    }
}

/// Parse `lines`: whole lines of a manifest, each with its newline.
pub fn parse(lines: &[u8]) -> Result<Vec<Entry<'_>>, Odd> {
    let text = lines.strip_suffix(b"\n").ok_or(Odd)?;
    text.split(|byte| *byte == b'\n').map(parse_line).collect()
}

/// Parse one line, without its newline.
pub fn parse_line(line: &[u8]) -> Result<Entry<'_>, Odd> {
    // Serde would also read an entry from an array. In Python, a carriage return ends a line.
    if line.len() > MAX_LINE || line.first() != Some(&b'{') || line.contains(&b'\r') {
        return Err(Odd);
    }
    let entry: Entry<'_> = serde_json::from_slice(line).map_err(|_| Odd)?;
    if entry.is_sound() { Ok(entry) } else { Err(Odd) }
}
