//! The frame plan of a piece of a manifest: `add` of `shared.frames.plan`.

use crate::entry::{Entry, FRAME, Kind, parse};
use crate::layout::header;
use crate::odd::{Odd, without_lock};
use pyo3::Python;

const BLOCK: u64 = 512;

/// What a piece of a manifest adds to the frame plan.
#[derive(Debug, Default)]
#[pyo3::pyclass(frozen, get_all)]
pub struct Part {
    /// Tar bytes that join the plan's last run, which is a packed frame with room for them.
    pub joined: u64,
    /// New runs: number of the first entry in the piece, bytes of the packed frame or of the large
    /// file's header, and bytes of the large file's content, or 0.
    pub runs: Vec<(u64, u64, u64)>,
    /// Number of entries.
    pub entries: u64,
    /// Number of files.
    pub files: u64,
    /// Bytes of the files' content.
    pub content_bytes: u64,
    /// Bytes of the files' paths.
    pub path_bytes: u64,
    /// Tar bytes of the entries.
    pub tar_bytes: u64,
    /// At least as many frames as the entries begin.
    pub most_frames: u64,
}

/// Return what `lines` add to a plan whose last run has `packed` tar bytes, if it is a packed frame.
///
/// None for lines that Python has to add.
#[pyo3::pyfunction]
pub fn plan(py: Python<'_>, lines: &[u8], packed: Option<u64>) -> Option<Part> {
    without_lock(py, || part(&parse(lines)?, packed))
}

/// Do the same as [`plan`] for parsed entries.
pub fn part(entries: &[Entry], packed: Option<u64>) -> Result<Part, Odd> {
    let (mut part, mut open) = (Part::default(), packed);
    for (number, entry) in (0..).zip(entries) {
        part.count(entry).ok_or(Odd)?;
        if entry.kept {
            continue;
        }
        let head = u64::try_from(header(entry)?.len())?;
        let content = entry.size.checked_next_multiple_of(BLOCK).ok_or(Odd)?;
        let size = head.checked_add(content).ok_or(Odd)?;
        part.tar_bytes = part.tar_bytes.checked_add(size).ok_or(Odd)?;
        let joined = open.and_then(|before| before.checked_add(size));
        if entry.is_large() {
            part.runs.push((number, head, entry.size));
            open = None;
        } else if let Some(joined) = joined.filter(|bytes| *bytes <= FRAME) {
            let last = part.runs.last_mut().map(|(_, bytes, _)| bytes);
            let last = last.unwrap_or(&mut part.joined);
            *last = last.checked_add(size).ok_or(Odd)?;
            open = Some(joined);
        } else {
            part.runs.push((number, size, 0));
            open = Some(size);
        }
    }
    Ok(part)
}

impl Part {
    fn count(&mut self, entry: &Entry) -> Option<()> {
        self.entries = self.entries.checked_add(1)?;
        let frames = entry.size.checked_div(FRAME)?.checked_add(1)?;
        self.most_frames = self.most_frames.checked_add(frames)?;
        if entry.kind == Kind::File {
            self.files = self.files.checked_add(1)?;
            self.content_bytes = self.content_bytes.checked_add(entry.size)?;
            let path = u64::try_from(entry.path.len()).ok()?;
            self.path_bytes = self.path_bytes.checked_add(path)?;
        }
        Some(())
    }
}
