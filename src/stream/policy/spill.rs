//! Queue of byte records on disk: segment files, written at the back, read and deleted at the front.
//!
//! A segment is a row of records: length (u32), CRC-32 of the payload (u32), both little-endian, then the payload.

use super::BufferError;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const HEADER_BYTES: u64 = 8;

/// A segment is closed when it reaches this size: about 2,700 CIFAR images.
const SEGMENT_BYTES: u64 = 8 << 20;

/// Records on disk, oldest first. Its files lie in a folder of its own, removed with it.
#[derive(Debug)]
pub(super) struct SpillQueue {
    parent: PathBuf,
    /// Made by the first record.
    dir: Option<TempDir>,
    /// Oldest first, none empty. Only the last is written to.
    segments: VecDeque<Segment>,
    /// Open end of the last segment; none: the next record begins a segment.
    writer: Option<File>,
    /// Of the first segment, placed at its `read_bytes`; none: not open.
    reader: Option<BufReader<File>>,
    next_number: u64,
    len: usize,
    segment_bytes: u64,
    /// Bytes of the record being read; kept for its memory.
    payload: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    bytes: u64,
    read_bytes: u64,
}

impl SpillQueue {
    /// An empty queue; its folder will be made in `parent` (default: the system's temporary folder).
    ///
    /// # Errors
    /// [`BufferError::SpillDir`] if `parent` is no folder.
    pub(super) fn new(parent: Option<&Path>) -> Result<Self, BufferError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        match std::fs::metadata(&parent) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(spill_dir(&parent, std::io::ErrorKind::NotADirectory.into())),
            Err(source) => return Err(spill_dir(&parent, source)),
        }
        Ok(Self {
            parent,
            dir: None,
            segments: VecDeque::new(),
            writer: None,
            reader: None,
            next_number: 0,
            len: 0,
            segment_bytes: SEGMENT_BYTES,
            payload: Vec::new(),
        })
    }

    /// Records on disk.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends a record. On an error the queue is as before.
    pub(super) fn push(&mut self, payload: &[u8]) -> Result<(), BufferError> {
        let length = u32::try_from(payload.len()).expect("a record is one sample, far below 4 GiB");
        let mut record = Vec::with_capacity(payload.len() + HEADER_BYTES as usize);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        record.extend_from_slice(payload);

        let mut file = match self.writer.take() {
            Some(file) => file,
            None => self.begin_segment()?,
        };
        let segment = self.segments.back_mut().expect("a writer has its segment");
        if let Err(source) = file.write_all(&record) {
            // The file stays closed, so what it holds beyond `bytes` is never reached.
            let path = segment.path.clone();
            if segment.bytes == 0 {
                let _ = std::fs::remove_file(&path);
                self.segments.pop_back();
            }
            return Err(BufferError::SpillIo { action: "write", path, source });
        }
        segment.bytes += record.len() as u64;
        self.len += 1;
        self.writer = (segment.bytes < self.segment_bytes).then_some(file);
        Ok(())
    }

    /// Takes the oldest record out, as `decode` makes of its bytes; none if the queue is empty. On an error, which
    /// includes that `decode` makes nothing of them, the record stays where it is.
    pub(super) fn pop<T>(
        &mut self,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, BufferError> {
        let Some(segment) = self.segments.front_mut() else { return Ok(None) };
        // Taken out, so that after an error a further call opens the file again at the same record.
        let reader = self.reader.take();
        let (value, reader) = segment.read(reader, &mut self.payload, decode)?;
        self.reader = Some(reader);
        self.len -= 1;
        self.drop_segment_if_drained();
        Ok(Some(value))
    }

    fn drop_segment_if_drained(&mut self) {
        let Some(segment) = self.segments.front().filter(|segment| segment.read_bytes == segment.bytes)
        else {
            return;
        };
        self.reader = None;
        // A file that cannot be deleted now goes with the folder.
        let _ = std::fs::remove_file(&segment.path);
        if self.segments.len() == 1 {
            self.writer = None;
        }
        self.segments.pop_front();
    }

    fn begin_segment(&mut self) -> Result<File, BufferError> {
        if self.dir.is_none() {
            let made = tempfile::Builder::new().prefix("scadles-spill-").tempdir_in(&self.parent);
            self.dir = Some(made.map_err(|source| spill_dir(&self.parent, source))?);
        }
        let dir = self.dir.as_ref().expect("made above").path();
        let path = dir.join(format!("segment-{:08}.bin", self.next_number));
        let file = File::create_new(&path).map_err(|source| BufferError::SpillIo {
            action: "write",
            path: path.clone(),
            source,
        })?;
        self.next_number += 1;
        self.segments.push_back(Segment { path, bytes: 0, read_bytes: 0 });
        Ok(file)
    }
}

impl Segment {
    /// Reads and decodes the record at `read_bytes`, and moves behind it if that went well.
    fn read<T>(
        &mut self,
        reader: Option<BufReader<File>>,
        payload: &mut Vec<u8>,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<(T, BufReader<File>), BufferError> {
        let io = |source| BufferError::SpillIo { action: "read", path: self.path.clone(), source };
        let damaged =
            |found| BufferError::SpillDamaged { path: self.path.clone(), at_byte: self.read_bytes, found };
        let ended = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged("the file ends"),
            _ => io(error),
        };
        let mut reader = match reader {
            Some(reader) => reader,
            None => {
                let mut file = File::open(&self.path).map_err(io)?;
                file.seek(SeekFrom::Start(self.read_bytes)).map_err(io)?;
                BufReader::with_capacity(64 << 10, file)
            }
        };
        let mut header = [0; HEADER_BYTES as usize];
        reader.read_exact(&mut header).map_err(ended)?;
        let [l0, l1, l2, l3, crc @ ..] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let end = self.read_bytes + HEADER_BYTES + u64::from(length);
        if end > self.bytes {
            return Err(damaged("a length beyond the end"));
        }
        payload.resize(length as usize, 0);
        reader.read_exact(payload).map_err(ended)?;
        if crc32fast::hash(payload) != u32::from_le_bytes(crc) {
            return Err(damaged("another checksum"));
        }
        let value = decode(payload).ok_or_else(|| damaged("no sample"))?;
        self.read_bytes = end;
        Ok((value, reader))
    }
}

fn spill_dir(path: &Path, source: std::io::Error) -> BufferError {
    BufferError::SpillDir { path: path.into(), source }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A writer on a disk that is always full.
    fn full_disk() -> Option<File> {
        Some(File::options().write(true).open("/dev/full").unwrap())
    }

    fn assert_full(result: Result<(), BufferError>) {
        let BufferError::SpillIo { action: "write", source, .. } = result.unwrap_err() else {
            panic!("a write")
        };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    }

    fn drain(queue: &mut SpillQueue) -> Vec<u8> {
        std::iter::from_fn(|| queue.pop(|bytes| bytes.first().copied()).unwrap()).collect()
    }

    #[test]
    fn a_full_disk_refuses_a_record_and_keeps_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = SpillQueue::new(Some(dir.path())).unwrap();
        // In the middle of a segment, then at the very first record of one.
        queue.push(&[1; 100]).unwrap();
        queue.writer = full_disk();
        assert_full(queue.push(&[9; 100]));
        queue.push(&[2; 100]).unwrap();
        queue.push(&[3; 100]).unwrap();
        assert_eq!((queue.len(), drain(&mut queue)), (3, vec![1, 2, 3]));
        queue.writer = queue.begin_segment().ok().and(full_disk());
        assert_full(queue.push(&[9; 100]));
        assert!(queue.segments.is_empty() && drain(&mut queue).is_empty());
        queue.push(&[4; 100]).unwrap();
        assert_eq!(drain(&mut queue), [4]);
    }

    #[test]
    fn what_decode_refuses_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = SpillQueue::new(Some(dir.path())).unwrap();
        queue.push(&[5]).unwrap();
        let error = queue.pop(|_| None::<()>).unwrap_err();
        assert!(matches!(error, BufferError::SpillDamaged { at_byte: 0, found: "no sample", .. }), "{error}");
        assert_eq!(drain(&mut queue), [5]);
    }
}
