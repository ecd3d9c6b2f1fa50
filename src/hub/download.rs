//! One blob onto this disk: resumed, checked against its checksum, and only then given its name.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_RANGE, TRANSFER_ENCODING};

use crate::error::Result;

use super::cache::{sync_folder, with_suffix};
use super::faults::{self, Fault};
use super::http::{Client, Reply, content_length, header, is_encoded};
use super::job::{Job, Meter};
use super::names::Etag;
use super::options::Settings;
use super::retry::Tries;

/// Bytes read from the network, or hashed from the disk, between two looks at the stop flag.
pub(super) const BLOCK: usize = 256 << 10;
/// A try that brought this many bytes got somewhere: the count of tries begins anew.
const HEADWAY: u64 = 1 << 20;

/// The file to fetch.
pub(super) struct Wanted<'a> {
    pub(super) repo: &'a str,
    pub(super) file: &'a str,
    /// The file's address at its commit, so that a push in between changes nothing.
    pub(super) url: &'a str,
    pub(super) etag: &'a Etag,
    /// Bytes, when the server said.
    pub(super) size: Option<u64>,
}

impl Wanted<'_> {
    fn what(&self) -> String {
        format!("`{}` of {}", self.file, self.repo)
    }
}

/// Fetches `wanted` and puts it at `blob`. The caller holds the blob's lock.
pub(super) fn fetch(
    client: &Client,
    settings: &Settings,
    job: &Job,
    wanted: &Wanted<'_>,
    blob: &Path,
) -> Result<()> {
    let disk = |path: &Path, error: &std::io::Error| faults::of_disk(path, wanted.url, error);
    let folder = blob.parent().unwrap_or(blob);
    fs::create_dir_all(folder).map_err(|error| disk(folder, &error))?;

    let mut partial = Partial::open(with_suffix(blob, ".incomplete"), wanted, job)?;
    let mut tries = Tries::new(settings, job, settings.tries);
    let mut clean_retry = true;
    loop {
        job.check()?;
        let before = partial.len;
        if wanted.size != Some(partial.len)
            && let Err(fault) = receive(client, job, wanted, &mut partial)
        {
            if partial.len.saturating_sub(before) >= HEADWAY {
                tries.refresh();
            }
            // The hub has just answered, so a connection that does not come about is worth another try.
            if let Err(fault) = tries.again(fault, true) {
                partial.keep();
                return Err(fault.into_error(&wanted.what(), tries.made()));
            }
            continue;
        }
        match partial.mismatch(wanted.etag) {
            None => break,
            Some(found) if clean_retry => {
                clean_retry = false;
                log::warn!(
                    "{} arrived with sha256 {found} instead of {}; fetching all of it once more.",
                    wanted.what(),
                    wanted.etag
                );
                partial.restart()?;
            }
            Some(found) => {
                partial.discard();
                return Err(faults::corrupt(&wanted.what(), wanted.etag.as_str(), &found));
            }
        }
    }
    let path = partial.path.clone();
    partial.file.sync_all().map_err(|error| disk(&path, &error))?;
    drop(partial);
    fs::rename(&path, blob).map_err(|error| disk(blob, &error))?;
    sync_folder(folder);
    Ok(())
}

/// One request for what is still missing.
fn receive(client: &Client, job: &Job, wanted: &Wanted<'_>, partial: &mut Partial<'_>) -> Result<(), Fault> {
    let start = (partial.len > 0).then_some(partial.len);
    let reply = client.get(wanted.url, start)?;
    let status = reply.response.status();
    match status {
        StatusCode::OK => {
            if start.is_some() {
                log::info!("The server sends {} from its beginning: starting over.", wanted.what());
                partial.restart()?;
            }
        }
        StatusCode::PARTIAL_CONTENT => {
            if let Err(detail) = check_range(&reply, partial.len, wanted.size) {
                partial.restart()?;
                return Err(Fault::passing(&reply.url, detail));
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            partial.restart()?;
            return Err(Fault::passing(&reply.url, "the server refused to go on where the last try ended"));
        }
        _ => return Err(reply.refused(&wanted.what(), wanted.repo)),
    }
    copy(job, wanted, partial, reply)
}

/// Writes the body of `reply` after what is there.
fn copy(job: &Job, wanted: &Wanted<'_>, partial: &mut Partial<'_>, reply: Reply) -> Result<(), Fault> {
    let Reply { url, response, .. } = reply;
    let announced = content_length(response.headers()).filter(|_| !is_encoded(response.headers()));
    let missing = wanted.size.map(|size| size - partial.len.min(size));
    if let (Some(announced), Some(missing)) = (announced, missing)
        && announced != missing
    {
        let detail = format!("the server announced {announced} bytes where {missing} are missing");
        return Err(Fault::passing(&url, detail));
    }
    let chunked = response.headers().contains_key(TRANSFER_ENCODING);
    if wanted.size.is_none() && announced.is_none() && !chunked && matches!(wanted.etag, Etag::Git(_)) {
        let found =
            "it gives neither size nor sha256 of a file, so nobody can tell whether all of it arrived";
        return Err(Fault::Final(faults::not_a_hub(&url, found)));
    }
    let mut meter = Meter::new(job, wanted.file, wanted.size);
    meter.at(partial.len);
    let mut body = response.into_body().into_reader();
    let mut block = vec![0; BLOCK];
    loop {
        job.check()?;
        let n = body.read(&mut block).map_err(|error| faults::of_transport(&url, error.into()))?;
        let Some(bytes) = block.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        if wanted.size.is_some_and(|size| partial.len + n as u64 > size) {
            partial.restart()?;
            return Err(Fault::passing(&url, "the server sent more bytes than the file has"));
        }
        partial.write(bytes)?;
        meter.at(partial.len);
    }
    match wanted.size {
        Some(size) if partial.len < size => {
            Err(Fault::passing(&url, format!("the transfer ended at {} of {size} bytes", partial.len)))
        }
        _ => Ok(()),
    }
}

/// Checks that a 206 answer begins at `start` of a file of `size` bytes.
pub(super) fn check_range(reply: &Reply, start: u64, size: Option<u64>) -> Result<(), String> {
    let text = header(reply.response.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
    let range = text.trim().strip_prefix("bytes").and_then(|rest| rest.trim().split_once('/'));
    let first = range.and_then(|(span, _)| span.split_once('-')?.0.trim().parse::<u64>().ok());
    let total = range.and_then(|(_, total)| total.trim().parse::<u64>().ok());
    if first != Some(start) {
        return Err(format!("the server sent another part than the one from byte {start} on"));
    }
    match (total, size) {
        (Some(total), Some(size)) if total != size => {
            Err(format!("the server sent a part of {total} bytes where the file has {size}"))
        }
        _ => Ok(()),
    }
}

/// The bytes that have arrived, with their running checksum.
struct Partial<'a> {
    file: File,
    path: PathBuf,
    url: &'a str,
    len: u64,
    hash: Sha256,
}

impl<'a> Partial<'a> {
    /// Opens what an earlier try left, and hashes it.
    fn open(path: PathBuf, wanted: &Wanted<'a>, job: &Job) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| faults::of_disk(&path, wanted.url, &error))?;
        let mut partial = Self { file, path, url: wanted.url, len: 0, hash: Sha256::new() };
        let found = partial.file.metadata().map_err(|error| partial.disk(&error))?.len();
        if wanted.size.is_some_and(|size| found > size) {
            partial.restart()?;
        } else if found > 0 {
            partial.rehash(job)?;
            log::info!("Going on with {} after {found} bytes.", wanted.what());
        }
        Ok(partial)
    }

    fn rehash(&mut self, job: &Job) -> Result<()> {
        let mut block = vec![0; BLOCK];
        loop {
            job.check()?;
            let n = self.file.read(&mut block).map_err(|error| self.disk(&error))?;
            let Some(bytes) = block.get(..n).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            self.hash.update(bytes);
            self.len += n as u64;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.disk(&error))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what has arrived.
    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(|error| self.disk(&error))?;
        self.file.seek(SeekFrom::Start(0)).map_err(|error| self.disk(&error))?;
        self.len = 0;
        self.hash = Sha256::new();
        Ok(())
    }

    /// The sha256 found, where it is not the one expected. A git object id is no sha256: there the size must do.
    fn mismatch(&self, etag: &Etag) -> Option<String> {
        let Etag::Sha256(expected) = etag else { return None };
        let found = format!("{:x}", self.hash.clone().finalize());
        (found != *expected).then_some(found)
    }

    /// Leaves the bytes for the next try; an empty file would only be clutter.
    fn keep(&self) {
        if self.len == 0 {
            self.discard();
        }
    }

    fn discard(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("{} was not removed: {error}.", self.path.display());
        }
    }

    fn disk(&self, error: &std::io::Error) -> crate::error::Error {
        faults::of_disk(&self.path, self.url, error)
    }
}
