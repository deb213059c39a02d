//! Persistence beyond its cap: segment files in order, removed when read, and every failure named.

use super::policy::{Number, push, take};
use scadles::stream::policy::{BufferError, Item, Policy, PolicyBuffer};
use std::path::{Path, PathBuf};

/// A payload on disk large enough for several segments.
struct Block(u64);

const BLOCK_BYTES: usize = 1 << 20;

impl Item for Block {
    fn stored_bytes(&self) -> u64 {
        BLOCK_BYTES as u64
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
        out.resize(BLOCK_BYTES, self.0 as u8);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == BLOCK_BYTES).then(|| Self(u64::from_le_bytes(bytes[..8].try_into().unwrap())))
    }
}

fn persistence(dir: &Path) -> Policy {
    Policy::Persistence { spill_dir: Some(dir.into()) }
}

/// A buffer with `held` numbers of 10 bytes, of which 2 in memory, over the folder `dir`.
fn filled(dir: &Path, held: u64) -> PolicyBuffer<Number> {
    let mut buffer = PolicyBuffer::new(20, persistence(dir)).unwrap();
    (0..held).for_each(|i| push(&mut buffer, i, 10));
    buffer
}

/// Segment files below the spill folder, in order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn order_is_memory_then_disk_and_newcomers_follow_until_it_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = filled(dir.path(), 5);
    assert_eq!(take(&mut buffer, 2), [0, 1]);
    push(&mut buffer, 5, 10);
    let counters = buffer.counters();
    assert_eq!((counters.spilled_samples, counters.memory_bytes, counters.occupancy_bytes), (4, 0, 40));
    assert_eq!(take(&mut buffer, 4), [2, 3, 4, 5]);
    assert!(segments(dir.path()).is_empty(), "a drained segment is deleted");
    push(&mut buffer, 6, 10);
    assert_eq!((buffer.counters().spilled_samples, take(&mut buffer, 9)), (0, vec![6]));
}

#[test]
fn segments_are_deleted_as_they_are_read_and_the_folder_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = PolicyBuffer::new(BLOCK_BYTES as u64, persistence(dir.path())).unwrap();
    for i in 0..30 {
        buffer.push(Block(i)).map_err(|refused| refused.error).unwrap();
    }
    let at_first = segments(dir.path()).len();
    assert!((3..=5).contains(&at_first), "29 MiB in {at_first} segments");
    let mut next = 0;
    let mut check = |block: &Block| {
        assert_eq!(block.0, next);
        next += 1;
    };
    buffer.take(20, &mut check).unwrap();
    assert!(segments(dir.path()).len() < at_first);
    buffer.take(4, &mut check).unwrap();
    drop(buffer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files of a dropped buffer remain");
}

#[test]
fn a_missing_folder_or_a_file_in_its_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [dir.path().join("missing"), file] {
        let error = PolicyBuffer::<Number>::new(20, persistence(&path)).unwrap_err();
        assert!(matches!(&error, BufferError::SpillDir { path: named, .. } if *named == path));
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("spill-dir"), "{text}");
    }
}

#[test]
fn a_folder_that_goes_away_refuses_the_sample_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("spill");
    std::fs::create_dir(&parent).unwrap();
    let mut buffer = filled(&parent, 2);
    // The file in place of the folder fails for root as well, as a full disk would.
    std::fs::remove_dir(&parent).unwrap();
    std::fs::write(&parent, "").unwrap();
    for _ in 0..2 {
        let refused = buffer.push(Number { value: 2, bytes: 10 }).unwrap_err();
        assert_eq!(refused.item.value, 2);
        assert!(matches!(refused.error, BufferError::SpillDir { .. }), "{}", refused.error);
        assert_eq!((buffer.counters().arrived, buffer.held()), (2, 2));
    }
    std::fs::remove_file(&parent).unwrap();
    std::fs::create_dir(&parent).unwrap();
    (2..6).for_each(|i| push(&mut buffer, i, 10));
    assert_eq!(take(&mut buffer, 9), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_file_in_the_way_of_a_segment_is_named_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = filled(dir.path(), 3);
    assert_eq!(take(&mut buffer, 3), [0, 1, 2]);
    let folder = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    (3..5).for_each(|i| push(&mut buffer, i, 10));
    let in_the_way = folder.join("segment-00000001.bin");
    std::fs::create_dir(&in_the_way).unwrap();
    let refused = buffer.push(Number { value: 5, bytes: 10 }).unwrap_err();
    assert!(
        matches!(refused.error, BufferError::SpillIo { action: "write", path, .. } if path == in_the_way)
    );
    assert_eq!((refused.item.value, buffer.counters().arrived, buffer.held()), (5, 5, 2));
    std::fs::remove_dir(&in_the_way).unwrap();
    (5..9).for_each(|i| push(&mut buffer, i, 10));
    assert_eq!(take(&mut buffer, 9), [3, 4, 5, 6, 7, 8]);
}

/// What happens to the bytes of a segment.
type Damage = fn(&mut Vec<u8>);

#[test]
fn damage_is_named_and_repeats_until_repaired() {
    let damages: [(&str, Damage); 4] = [
        ("checksum", |bytes| bytes[24 + 8 + 3] ^= 1),
        ("checksum", |bytes| bytes[24 + 4] ^= 0x80),
        ("length", |bytes| bytes[24 + 3] = 0x7f),
        ("the file ends", |bytes| bytes.truncate(24 + 5)),
    ];
    for (found, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let mut buffer = filled(dir.path(), 5);
        let [segment] = &segments(dir.path())[..] else { panic!("one segment") };
        let whole = std::fs::read(segment).unwrap();
        assert_eq!(whole.len(), 3 * 24);
        let mut damaged = whole.clone();
        damage(&mut damaged);
        std::fs::write(segment, damaged).unwrap();

        let mut values = Vec::new();
        let error = buffer.take(9, &mut |item| values.push(item.value)).unwrap_err();
        // The first spilled record is whole; the second, at byte 24, is not.
        assert!(matches!(&error, BufferError::SpillDamaged { path, at_byte: 24, .. } if path == segment));
        assert!(error.to_string().contains(found), "{error}");
        assert_eq!(values, [0, 1, 2]);
        assert!(buffer.take(1, &mut |_| ()).is_err());
        let counters = buffer.counters();
        assert_eq!((counters.arrived, counters.taken, counters.occupancy_samples), (5, 3, 2));

        std::fs::write(segment, whole).unwrap();
        assert_eq!(take(&mut buffer, 9), [3, 4]);
    }
}

#[test]
fn a_deleted_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = filled(dir.path(), 5);
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert_eq!(take(&mut buffer, 2), [0, 1]);
    let error = buffer.take(1, &mut |_| ()).unwrap_err();
    assert!(matches!(error, BufferError::SpillIo { action: "read", .. }), "{error}");
}
