//! The header of a model on the hub, without its weights: the first bytes of each file, a few megabytes.

use std::io::Read;

use ureq::http::StatusCode;

use crate::error::Result;
use crate::gguf::{self, Header, PartName, Prefix};

use super::download::{BLOCK, check_range};
use super::faults::{self, Fault};
use super::fetch::Remote;
use super::http::is_encoded;
use super::job::Job;
use super::retry;
use super::spec::ModelSpec;

/// Bytes of the first request. Headers take 1 to 12 MB, nearly all of it vocabulary; those of later parts a few KB.
const FIRST: u64 = 1 << 20;
/// Most bytes that are read of a header over the network.
const MAX: u64 = 64 << 20;

impl Remote {
    /// The checked header of the model in `files`, one or all parts of it, and the commit it is from.
    pub(super) fn header(&self, job: &Job, spec: &ModelSpec, files: &[String]) -> Result<(Header, String)> {
        let mut revision = spec.revision().to_owned();
        let mut parts = Vec::with_capacity(files.len());
        for file in files {
            let entry = self.describe(job, spec.repo(), &revision, file)?;
            // All parts of one commit.
            revision = entry.commit;
            parts.push((file.clone(), self.part_header(job, spec.repo(), &revision, file, entry.size)?));
        }
        let [(name, only)] = parts.as_slice() else { return Ok((gguf::join(parts)?, revision)) };
        gguf::part_names(name.rsplit('/').next().unwrap_or(name), only)?;
        Ok((parts.swap_remove(0).1, revision))
    }

    fn part_header(
        &self,
        job: &Job,
        repo: &str,
        commit: &str,
        file: &str,
        size: Option<u64>,
    ) -> Result<Header> {
        let (url, what) = (self.file_url(repo, commit, file), format!("The header of `{file}` of {repo}"));
        let size = size.ok_or_else(|| faults::not_a_hub(&url, "it does not say how large the file is"))?;
        let mut bytes = Vec::new();
        let mut wanted = FIRST;
        loop {
            let end = wanted.min(size).min(MAX);
            let more = || self.extend(job, &url, repo, &what, size, end, &mut bytes);
            retry::request(&self.settings, job, self.settings.tries, more)
                .map_err(|(fault, tries)| fault.into_error(&what, tries))?;
            let read = Header::parse_prefix(&bytes, size).map_err(|error| {
                let message = format!("{} (`{file}` of {repo})", error.message());
                crate::error::Error::new(error.kind().clone(), message, error.hint())
            })?;
            match read {
                Prefix::Whole(header) => return Ok(header),
                Prefix::Needs(least) if least > MAX || end == MAX => {
                    let message =
                        format!("{what} is longer than {} MiB, the limit over the network.", MAX >> 20);
                    return Err(crate::error::Error::corrupt("header", Some(MAX), message));
                }
                Prefix::Needs(least) => wanted = least.max(2 * end),
            }
        }
    }

    /// Reads on until `bytes` are the first `end` of the file, which has `size`.
    #[expect(clippy::too_many_arguments, reason = "one request: where, of what, from where, how far")]
    fn extend(
        &self,
        job: &Job,
        url: &str,
        repo: &str,
        what: &str,
        size: u64,
        end: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let start = bytes.len() as u64;
        if start >= end {
            return Ok(());
        }
        let reply = self.client.get_part(url, start..end)?;
        match reply.response.status() {
            StatusCode::PARTIAL_CONTENT => {
                check_range(&reply, start, Some(size)).map_err(|detail| Fault::passing(url, detail))?;
            }
            // A server without ranges begins at the beginning; no more than is needed is read of it.
            StatusCode::OK => bytes.clear(),
            _ => return Err(reply.refused(what, repo)),
        }
        if is_encoded(reply.response.headers()) {
            return Err(Fault::Final(faults::not_a_hub(url, "it sends the file compressed")));
        }
        let mut body = reply.response.into_body().into_reader().take(end - bytes.len() as u64);
        let mut block = vec![0; BLOCK];
        loop {
            job.check()?;
            let n = body.read(&mut block).map_err(|error| faults::of_transport(url, error.into()))?;
            let Some(read) = block.get(..n).filter(|read| !read.is_empty()) else { break };
            bytes.extend_from_slice(read);
        }
        if (bytes.len() as u64) < end {
            let detail = format!("the transfer ended at {} of {end} bytes", bytes.len());
            return Err(Fault::passing(url, detail));
        }
        Ok(())
    }
}

/// The files of the model that `file` is, or is a part of.
pub(super) fn all_parts(file: &str) -> Vec<String> {
    match PartName::parse(file) {
        Some(part) if part.count <= gguf::MAX_PARTS => part.all().collect(),
        _ => vec![file.to_owned()],
    }
}
