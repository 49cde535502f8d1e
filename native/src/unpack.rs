//! The usual case of `initpuller.volume.staging.unpack`: from tar bytes straight into files.

use crate::entry::{Entry, Kind, parse};
use crate::folders::{Folders, plain, reopen};
use crate::layout::{Member, NANOSECONDS, members};
use crate::odd::{Odd, without_lock};
use crate::pack::add_digests;
use pyo3::{Python, pyfunction};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    fstat, ftruncate, futimens, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

const HOLE: usize = 4096;
const ZEROS: [u8; HOLE] = [0; HOLE];
const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const WHILE_ASSEMBLED: Mode = Mode::from_raw_mode(0o600);
const OWNER_ACCESS: u32 = 0o700;

/// The owner of everything (none: as in the source), and whether the process may give files away.
type Ownership = (Option<(u32, u32)>, bool);
/// The position of an entry, and digests from it on in a row: zeros for an entry without content.
type Run = (usize, Vec<u8>);

/// Verify a frame, write its entries, and return digests and late entries by their position.
///
/// `lines` are those of all entries that the frame spans; `block` is the number of a large file's
/// block. Nothing is written unless `tag` is the digest of the digests of the files' pieces.
#[pyfunction]
pub fn unpack(
    py: Python<'_>,
    staging: u32,
    lines: &[u8],
    block: u64,
    tar: &[u8],
    tag: &[u8],
    ownership: Ownership,
) -> Option<(Vec<Run>, Vec<usize>)> {
    without_lock(py, || {
        let entries = parse(lines)?;
        let (members, is_large) = usual(&entries, block, tar)?;
        let digests = verified(&members, tar, tag)?;
        let staging = reopen(staging)?;
        let mut unpacking = Unpacking {
            folders: Folders::new(staging.as_fd(), true),
            ownership,
            tar,
            within: Vec::new(),
            late: Vec::new(),
            changes_late: HashSet::new(),
        };
        for member in &members {
            unpacking.add(member)?;
        }
        let late = unpacking.late();
        Ok((if is_large { Vec::new() } else { digests }, late))
    })
}

/// Return the members of a frame, and whether it is a block of a large file.
fn usual<'frame, 'line>(
    entries: &'frame [Entry<'line>],
    block: u64,
    tar: &[u8],
) -> Result<(Vec<Member<'frame, 'line>>, bool), Odd> {
    let members = members(entries, block, tar.len())?;
    let is_large = members.iter().any(|member| member.entry.is_large());
    let is_usual = match members.as_slice() {
        [only] if is_large => only.number == 0,
        _ => !is_large && block == 0,
    };
    is_usual.then_some((members, is_large)).ok_or(Odd)
}

/// Hash all pieces, compare them with the frame's digest, and return their digests.
fn verified(members: &[Member<'_, '_>], tar: &[u8], tag: &[u8]) -> Result<Vec<Run>, Odd> {
    let mut all = Sha256::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut next = None;
    for member in members {
        let mut digest = None;
        if member.entry.kind == Kind::File {
            digest = add_digests(&mut all, content(member, tar)?, member.entry.is_large());
        }
        let digest = digest.unwrap_or_default();
        match runs.last_mut() {
            Some((_, run)) if next == Some(member.number) => run.extend(digest),
            _ => runs.push((member.number, digest.to_vec())),
        }
        next = member.number.checked_add(1);
    }
    (all.finalize().as_slice() == tag).then_some(runs).ok_or(Odd)
}

fn content<'tar>(member: &Member<'_, '_>, tar: &'tar [u8]) -> Result<&'tar [u8], Odd> {
    tar.get(member.content.clone()).ok_or(Odd)
}

struct Unpacking<'frame> {
    folders: Folders<'frame>,
    ownership: Ownership,
    tar: &'frame [u8],
    /// The folders of the frame that contain the last member.
    within: Vec<&'frame Member<'frame, 'frame>>,
    late: Vec<usize>,
    /// Folders that will get a hard link.
    changes_late: HashSet<&'frame str>,
}

impl<'frame> Unpacking<'frame> {
    fn add(&mut self, member: &'frame Member<'frame, 'frame>) -> Result<(), Odd> {
        let entry = member.entry;
        let (above, name) = entry.split();
        let name = plain(name)?;
        while let Some(folder) = self.within.pop_if(|each| each.entry.path != above) {
            self.leave(folder)?;
        }
        match entry.kind {
            Kind::Folder => {
                self.folders.folder(&entry.path)?;
                self.within.push(member);
            }
            Kind::Hardlink => {
                self.late.push(member.number);
                self.changes_late.insert(above);
            }
            Kind::Symlink => {
                let owner = self.owner(entry);
                make_symlink(self.folders.folder(above)?, name, entry, owner)?;
            }
            Kind::File if entry.is_large() => {
                let file = openat(self.folders.folder(above)?, name, CREATE, WHILE_ASSEMBLED)?;
                ftruncate(&file, entry.size)?; // blocks come in any order
                let content = content(member, self.tar)?;
                write(file.as_fd(), content, member.offset, entry.data.is_some())?;
                close(file)?;
                if member.offset == 0 {
                    self.late.push(member.number);
                }
            }
            Kind::File => {
                let owner = self.owner(entry);
                let file = create(self.folders.folder(above)?, name)?;
                if entry.data.is_some() {
                    ftruncate(&file, entry.size)?;
                }
                let content = content(member, self.tar)?;
                write(file.as_fd(), content, 0, entry.data.is_some())?;
                apply_attributes(file.as_fd(), entry, owner, entry.mode)?;
                close(file)?;
            }
        }
        Ok(())
    }

    /// Finish a folder that gets no more entries, unless a hard link comes into it later.
    fn leave(&mut self, folder: &Member<'_, '_>) -> Result<(), Odd> {
        let entry = folder.entry;
        if self.changes_late.contains(&*entry.path) {
            self.late.push(folder.number);
            return Ok(());
        }
        let (owner, (_, is_privileged)) = (self.owner(entry), self.ownership);
        let open = if is_privileged { 0 } else { OWNER_ACCESS };
        let fd = self.folders.folder(&entry.path)?;
        apply_attributes(fd, entry, owner, entry.mode | open)
    }

    /// Return what has to wait, and the folders that the next frame may continue.
    fn late(mut self) -> Vec<usize> {
        let open = self.within.iter().map(|folder| folder.number);
        self.late.extend(open);
        self.late.sort_unstable();
        self.late
    }

    fn owner(&self, entry: &Entry<'_>) -> (u32, u32) {
        self.ownership.0.unwrap_or((entry.uid, entry.gid))
    }
}

/// Create the file `name`; replace what an interrupted run or an earlier snapshot left.
fn create(folder: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Odd> {
    let flags = CREATE.union(OFlags::EXCL);
    match openat(folder, name, flags, WHILE_ASSEMBLED) {
        Err(Errno::EXIST) => {
            unlinkat(folder, name, AtFlags::empty())?;
            Ok(openat(folder, name, flags, WHILE_ASSEMBLED)?)
        }
        opened => Ok(opened?),
    }
}

/// Write `content` at `offset`; leave out runs of zeros if the file is sparse.
fn write(
    file: BorrowedFd<'_>,
    content: &[u8],
    mut offset: u64,
    is_sparse: bool,
) -> Result<(), Odd> {
    let step = if is_sparse { HOLE } else { usize::MAX };
    for mut piece in content.chunks(step) {
        if is_sparse && ZEROS.starts_with(piece) {
            offset = offset.checked_add(u64::try_from(piece.len())?).ok_or(Odd)?;
            continue;
        }
        while !piece.is_empty() {
            let written = pwrite(file, piece, offset)?;
            if written == 0 {
                return Err(Odd);
            }
            offset = offset.checked_add(u64::try_from(written)?).ok_or(Odd)?;
            piece = piece.get(written..).ok_or(Odd)?;
        }
    }
    Ok(())
}

/// Close `file`. Some volumes report a failed write only now (close(2)), and a drop ignores that.
fn close(file: OwnedFd) -> Result<(), Odd> {
    nix::unistd::close(file).map_err(|_| Odd)
}

/// Set owner, mode and times, in this order, and read them back: a volume may not keep them.
fn apply_attributes(
    fd: BorrowedFd<'_>,
    entry: &Entry<'_>,
    owner: (u32, u32),
    mode: u32,
) -> Result<(), Odd> {
    let found = fstat(fd)?;
    if (found.st_uid, found.st_gid) != owner {
        let (uid, gid) = ids(owner);
        fchown(fd, uid, gid)?;
    }
    fchmod(fd, Mode::from_raw_mode(mode))?;
    futimens(fd, &times(entry)?)?;
    compare(entry, &fstat(fd)?, owner, mode)
}

fn make_symlink(
    folder: BorrowedFd<'_>,
    name: &str,
    entry: &Entry<'_>,
    owner: (u32, u32),
) -> Result<(), Odd> {
    symlinkat(&*entry.link, folder, name)?;
    let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (found.st_uid, found.st_gid) != owner {
        let (uid, gid) = ids(owner);
        chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    utimensat(folder, name, &times(entry)?, AtFlags::SYMLINK_NOFOLLOW)?;
    let made = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    compare(entry, &made, owner, entry.mode)
}

fn ids((uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn times(entry: &Entry<'_>) -> Result<Timestamps, Odd> {
    let time = Timespec {
        tv_sec: entry.mtime_ns.checked_div_euclid(NANOSECONDS).ok_or(Odd)?,
        tv_nsec: entry.mtime_ns.checked_rem_euclid(NANOSECONDS).ok_or(Odd)?,
    };
    Ok(Timestamps { last_access: time, last_modification: time })
}

/// Return [`Odd`] if an attribute is not the one that was set.
fn compare(entry: &Entry<'_>, have: &Stat, owner: (u32, u32), mode: u32) -> Result<(), Odd> {
    let kind = match entry.kind {
        Kind::Folder => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Hardlink => return Err(Odd),
    };
    let time = times(entry)?.last_modification;
    let is_same = FileType::from_raw_mode(have.st_mode) == kind
        && (kind != FileType::RegularFile || u64::try_from(have.st_size)? == entry.size)
        && have.st_mode & 0o7777 == mode
        && (have.st_uid, have.st_gid) == owner
        && have.st_mtime == time.tv_sec
        && i64::try_from(have.st_mtime_nsec).is_ok_and(|part| part == time.tv_nsec);
    is_same.then_some(()).ok_or(Odd)
}
