//! Entries of a manifest, from its lines (docs/protocol.md).

use crate::odd::Odd;
use serde::Deserialize;
use std::borrow::Cow;

/// Bytes of a frame, and of a block of a large file (`shared.frames.plan`).
pub const FRAME: u64 = 4 * 1024 * 1024;
const MAX_LINE: usize = 1024 * 1024;
const MAX_MODE: u32 = 0o7777;

const NAME: usize = 100;
const PREFIX: usize = 155;
const LINK: usize = 100;
const SMALL_NUMBER: u32 = 8_u32.pow(7);
const LARGE_NUMBER: u64 = 8_u64.pow(11);
const LATEST_NS: i64 = 8_i64.pow(11) * 1_000_000_000;

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
    type Error = Odd;

    fn try_from(name: &str) -> Result<Self, Odd> {
        match name {
            "dir" => Ok(Self::Folder),
            "file" => Ok(Self::File),
            "symlink" => Ok(Self::Symlink),
            "hardlink" => Ok(Self::Hardlink),
            _ => Err(Odd),
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
    #[must_use]
    pub fn split(&self) -> (&str, &str) {
        self.path.rsplit_once('/').unwrap_or(("", &self.path))
    }

    /// Return whether the entry has frames of its own.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.size > FRAME
    }

    /// Return whether one ustar block holds the entry, without a pax header
    /// (`shared.frames.tar_layout`).
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.path.is_ascii()
            && self.has_short_path()
            && self.link.is_ascii()
            && self.link.len() <= LINK
            && self.size < LARGE_NUMBER
            && (0..LATEST_NS).contains(&self.mtime_ns)
            && self.uid < SMALL_NUMBER
            && self.gid < SMALL_NUMBER
    }

    fn has_short_path(&self) -> bool {
        let is_folder = self.kind == Kind::Folder;
        let length = self.path.len().saturating_add(usize::from(is_folder)); // its last slash
        if length <= NAME {
            return true;
        }
        let within = length.saturating_sub(1).min(PREFIX + 1);
        let cut = self.path.get(..within).and_then(|start| start.rfind('/'));
        cut.is_some_and(|cut| {
            let rest = length.saturating_sub(cut).saturating_sub(1);
            cut > 0 && rest > 0 && rest <= NAME
        })
    }

    fn is_sound(&self) -> bool {
        let has_content = self.size > 0 || self.data.is_some();
        self.mode <= MAX_MODE
            && (self.kind == Kind::File || !has_content)
            && self.data.is_none_or(|data| data <= self.size)
    }
}

/// Parse `lines`: whole lines of a manifest, each with its newline.
///
/// # Errors
/// [`Odd`] for a line that only Python can judge.
pub fn parse(lines: &[u8]) -> Result<Vec<Entry<'_>>, Odd> {
    let text = lines.strip_suffix(b"\n").ok_or(Odd)?;
    text.split(|byte| *byte == b'\n').map(parse_line).collect()
}

/// Parse one line, without its newline.
///
/// # Errors
/// [`Odd`] for a line that only Python can judge.
pub fn parse_line(line: &[u8]) -> Result<Entry<'_>, Odd> {
    if line.len() > MAX_LINE || line.first() != Some(&b'{') {
        return Err(Odd); // serde would also read an entry from an array
    }
    let entry: Entry<'_> = serde_json::from_slice(line).map_err(|_| Odd)?;
    if entry.is_sound() {
        Ok(entry)
    } else {
        Err(Odd)
    }
}
