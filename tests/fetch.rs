//! `data::fetch` against a server on loopback that is slow, forgetful, wrong or hostile.

use scadles::data::fetch::{ArchiveError, FetchError, FetchEvent, FetchKind, FetchOptions, fetch};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the server does with one connection; it stops listening after the last.
#[derive(Clone)]
enum Reply {
    /// Everything, whatever range is asked for.
    Whole(Vec<u8>),
    /// What is asked for, range or not.
    Range(Vec<u8>),
    /// Announces everything, closes after this many bytes.
    Cut(Vec<u8>, usize),
    /// Announces everything, sends this many bytes, then nothing for longer than any test waits.
    Stall(Vec<u8>, usize),
    /// A status without a body.
    Status(u16),
}

struct Server {
    url: String,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/archive.tar.gz", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let heard = ranges.clone();
        let thread = std::thread::spawn(move || {
            for reply in replies {
                let (stream, _) = listener.accept().unwrap();
                let range = read_request(&stream);
                heard.lock().unwrap().push(range.clone());
                // The client may hang up first; that is its business.
                let _ = answer(&stream, reply, range);
            }
        });
        Self { url, ranges, thread: Some(thread) }
    }

    /// The Range header of each request, once all replies are given.
    fn finish(mut self) -> Vec<Option<String>> {
        self.thread.take().unwrap().join().unwrap();
        self.ranges.lock().unwrap().clone()
    }
}

/// Reads one request; returns its Range header.
fn read_request(stream: &TcpStream) -> Option<String> {
    let mut range = None;
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_string());
        }
    }
    range
}

fn answer(mut stream: &TcpStream, reply: Reply, range: Option<String>) -> std::io::Result<()> {
    let head = |status: &str, length: usize, more: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n")
    };
    match reply {
        Reply::Whole(body) => {
            stream.write_all(head("200 OK", body.len(), "").as_bytes())?;
            stream.write_all(&body)
        }
        Reply::Range(body) => {
            let total = body.len();
            let start =
                range.map_or(0, |r| r.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
            if start >= total {
                let more = format!("Content-Range: bytes */{total}\r\n");
                return stream.write_all(head("416 Range Not Satisfiable", 0, &more).as_bytes());
            }
            let more = format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1);
            stream.write_all(head("206 Partial Content", total - start, &more).as_bytes())?;
            stream.write_all(&body[start..])
        }
        Reply::Cut(body, after) => {
            stream.write_all(head("200 OK", body.len(), "").as_bytes())?;
            stream.write_all(&body[..after])
        }
        Reply::Stall(body, after) => {
            stream.write_all(head("200 OK", body.len(), "").as_bytes())?;
            stream.write_all(&body[..after])?;
            let open = stream.try_clone()?;
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(60));
                drop(open);
            });
            Ok(())
        }
        Reply::Status(status) => stream.write_all(head(&format!("{status} No"), 0, "").as_bytes()),
    }
}

/// A `.tar.gz` of these entries; names and link targets are written as they are, however wicked.
fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        if link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content);
        }
        let content = if link { &[] } else { *content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// A good CIFAR-100 archive whose pixels hardly compress, about 12 kB, with `more` at its end.
fn cifar100(more: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut state = 1u32;
    let mut record: Vec<u8> = Vec::from([3, 4]);
    record.extend(
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(3072),
    );
    let mut entries: Vec<(&str, tar::EntryType, &[u8])> = vec![
        ("cifar-100-binary/", tar::EntryType::Directory, &[]),
        ("cifar-100-binary/train.bin", tar::EntryType::Regular, &record),
        ("cifar-100-binary/notes.txt", tar::EntryType::Regular, b"passed over"),
        ("./cifar-100-binary/test.bin", tar::EntryType::Regular, &record),
    ];
    entries.extend_from_slice(more);
    archive(&entries)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn options(server: &Server, archive: &[u8]) -> FetchOptions {
    FetchOptions {
        url: Some(server.url.clone()),
        sha256: Some(sha256(archive)),
        connect_timeout: Duration::from_secs(20),
        // Long: a loaded machine is no silent server.
        stall_timeout: Duration::from_secs(20),
        retries: 2,
        backoff: Duration::from_millis(5),
    }
}

fn get(dest: &Path, options: &FetchOptions) -> (Result<PathBuf, FetchError>, Vec<FetchEvent>) {
    let mut events = Vec::new();
    let result = fetch(FetchKind::Cifar100, dest, options, &mut |event| events.push(event));
    (result, events)
}

/// Names in a folder, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_good_archive_is_fetched_once() {
    let body = cifar100(&[]);
    let server = Server::start(vec![Reply::Whole(body.clone())]);
    let options = options(&server, &body);
    let home = tempfile::tempdir().unwrap();
    let dest = home.path().join("made/if/needed");

    let (result, events) = get(&dest, &options);
    let dir = result.unwrap();
    assert_eq!(dir, dest.join("cifar-100-binary"));
    assert_eq!(names(&dest), ["cifar-100-binary"], "nothing else is left");
    assert_eq!(names(&dir), ["test.bin", "train.bin"]);
    assert_eq!(scadles::data::load(&dest).unwrap().train.label(0), 4);
    let total = body.len() as u64;
    assert!(events.contains(&FetchEvent::Downloading { received_bytes: total, total_bytes: Some(total) }));
    assert!(events.contains(&FetchEvent::Unpacking { file: "train.bin".into() }));
    assert_eq!(server.finish(), [None]);

    // The server is gone: a second fetch must not need it.
    let (result, events) = get(&dest, &options);
    assert_eq!(result.unwrap(), dir);
    assert_eq!(events, [FetchEvent::AlreadyThere { dir }]);
}

#[test]
fn a_wrong_checksum_names_both_sums_and_deletes_the_download() {
    let body = cifar100(&[]);
    let server = Server::start(vec![Reply::Whole(body.clone())]);
    let options = FetchOptions { sha256: None, ..options(&server, &body) };
    let dest = tempfile::tempdir().unwrap();
    let error = get(dest.path(), &options).0.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, FetchError::Checksum { .. }), "{said}");
    assert!(said.contains(FetchKind::Cifar100.sha256()) && said.contains(&sha256(&body)), "{said}");
    assert!(names(dest.path()).is_empty());
    server.finish();
}

#[test]
fn a_cut_connection_is_resumed_in_the_same_call() {
    let body = cifar100(&[]);
    let server =
        Server::start(vec![Reply::Cut(body.clone(), 1000), Reply::Status(503), Reply::Range(body.clone())]);
    let dest = tempfile::tempdir().unwrap();
    let (result, events) = get(dest.path(), &options(&server, &body));
    result.unwrap();
    let retries = events.iter().filter(|event| matches!(event, FetchEvent::Retrying { .. })).count();
    assert_eq!(retries, 2);
    assert_eq!(server.finish(), [None, Some("bytes=1000-".into()), Some("bytes=1000-".into())]);
}

#[test]
fn a_download_given_up_is_resumed_by_the_next_call() {
    let body = cifar100(&[]);
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Cut(body.clone(), 700)]);
    let given_up = FetchOptions { retries: 0, ..options(&server, &body) };
    let error = get(dest.path(), &given_up).0.unwrap_err();
    assert!(matches!(error, FetchError::Cut { received_bytes: 700, attempts: 1, .. }), "{error}");
    assert!(error.to_string().contains("fetch again to resume"), "{error}");
    assert_eq!(server.finish(), [None]);
    // Nobody listens now: the download stays.
    let error = get(dest.path(), &given_up).0.unwrap_err();
    assert!(matches!(error, FetchError::Cut { received_bytes: 700, .. }), "{error}");

    let server = Server::start(vec![Reply::Range(body.clone())]);
    get(dest.path(), &options(&server, &body)).0.unwrap();
    assert_eq!(server.finish(), [Some("bytes=700-".into())]);
}

#[test]
fn a_download_that_was_complete_is_only_verified() {
    let body = cifar100(&[]);
    let dest = tempfile::tempdir().unwrap();
    fs::write(dest.path().join("cifar-100-binary.tar.gz.part"), &body).unwrap();
    let server = Server::start(vec![Reply::Range(body.clone())]);
    get(dest.path(), &options(&server, &body)).0.unwrap();
    assert_eq!(server.finish(), [Some(format!("bytes={}-", body.len()))]);
}

#[test]
fn a_server_without_ranges_or_with_a_shorter_file_means_starting_over() {
    let body = cifar100(&[]);
    let part =
        |dest: &Path, bytes: &[u8]| fs::write(dest.join("cifar-100-binary.tar.gz.part"), bytes).unwrap();

    let dest = tempfile::tempdir().unwrap();
    part(dest.path(), &[7; 500]);
    let server = Server::start(vec![Reply::Whole(body.clone())]);
    get(dest.path(), &options(&server, &body)).0.unwrap();
    assert_eq!(server.finish(), [Some("bytes=500-".into())]);

    let dest = tempfile::tempdir().unwrap();
    part(dest.path(), &vec![7; body.len() + 1]);
    let server = Server::start(vec![Reply::Range(body.clone()), Reply::Whole(body.clone())]);
    get(dest.path(), &options(&server, &body)).0.unwrap();
    assert_eq!(server.finish(), [Some(format!("bytes={}-", body.len() + 1)), None]);
}

#[test]
fn a_silent_server_is_noticed() {
    let body = cifar100(&[]);
    let server = Server::start(vec![Reply::Stall(body.clone(), 900), Reply::Range(body.clone())]);
    let dest = tempfile::tempdir().unwrap();
    let impatient = FetchOptions { stall_timeout: Duration::from_secs(2), ..options(&server, &body) };
    get(dest.path(), &impatient).0.unwrap();
    assert_eq!(server.finish(), [None, Some("bytes=900-".into())]);
}

#[test]
fn a_refusal_is_final() {
    let server = Server::start(vec![Reply::Status(404)]);
    let dest = tempfile::tempdir().unwrap();
    let error = get(dest.path(), &options(&server, &[])).0.unwrap_err();
    assert!(matches!(error, FetchError::Status { status: 404, .. }), "{error}");
    assert_eq!(server.finish().len(), 1, "no second attempt");
}

#[test]
fn hostile_and_damaged_archives_leave_nothing() {
    use tar::EntryType as T;
    let record = vec![0; 3074];
    let good = cifar100(&[]);
    let mut broken_inside = good.clone();
    let middle = good.len() / 2;
    broken_inside[middle..middle + 64].fill(0);
    let link = ("cifar-100-binary/coarse_label_names.txt", T::Symlink, b"/etc/passwd".as_slice());
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("parent", cifar100(&[("../evil", T::Regular, b"x")]), "leaves the folder"),
        (
            "hidden parent",
            cifar100(&[("cifar-100-binary/../../evil", T::Regular, b"x")]),
            "leaves the folder",
        ),
        ("absolute", cifar100(&[("/tmp/scadles-evil", T::Regular, b"x")]), "is an absolute path"),
        ("symlink", cifar100(&[link]), "is a link"),
        ("hard link", cifar100(&[("cifar-100-binary/x", T::Link, b"/etc/passwd")]), "is a link"),
        ("device", cifar100(&[("cifar-100-binary/x", T::Char, b"")]), "is neither a file nor a folder"),
        ("twice", cifar100(&[("cifar-100-binary/test.bin", T::Regular, &record)]), "is there twice"),
        (
            "long text",
            cifar100(&[("cifar-100-binary/fine_label_names.txt", T::Regular, &[b'a'; 1 << 21])]),
            "more than",
        ),
        ("no test", archive(&[("cifar-100-binary/train.bin", T::Regular, &record)]), "test.bin\" is missing"),
        ("truncated", good[..good.len() - 9].to_vec(), "damaged"),
        ("half", good[..good.len() / 2].to_vec(), "damaged"),
        ("broken inside", broken_inside, "damaged"),
        ("not gzip", b"<html>Login</html>".to_vec(), "damaged"),
        ("empty", Vec::new(), "damaged"),
    ];
    for (case, body, said) in cases {
        let home = tempfile::tempdir().unwrap();
        let dest = home.path().join("dest");
        let server = Server::start(vec![Reply::Whole(body.clone())]);
        let error = get(&dest, &options(&server, &body)).0.unwrap_err();
        assert!(error.to_string().contains(said), "{case}: {error}");
        let hostile = matches!(&error, FetchError::Archive { error: ArchiveError::Hostile { .. }, .. });
        assert_eq!(
            hostile,
            ["leaves", "is a", "is neither"].iter().any(|word| said.starts_with(word)),
            "{case}"
        );
        assert!(names(&dest).is_empty(), "{case}: {:?}", names(&dest));
        assert_eq!(names(home.path()), ["dest"], "{case}");
        server.finish();
    }
    assert!(!Path::new("/tmp/scadles-evil").exists());
}

#[test]
fn records_are_checked_before_the_folder_appears() {
    let bad = vec![99; 3074];
    let body = archive(&[
        ("cifar-100-binary/train.bin", tar::EntryType::Regular, &bad),
        ("cifar-100-binary/test.bin", tar::EntryType::Regular, &bad),
    ]);
    let server = Server::start(vec![Reply::Whole(body.clone())]);
    let dest = tempfile::tempdir().unwrap();
    let error = get(dest.path(), &options(&server, &body)).0.unwrap_err();
    assert!(matches!(error, FetchError::NotTheDataSet { .. }), "{error}");
    assert!(names(dest.path()).is_empty());
    server.finish();
}

#[test]
fn user_data_is_never_deleted_and_bad_input_is_named() {
    let dest = tempfile::tempdir().unwrap();
    let mine = dest.path().join("cifar-100-binary/mine.txt");
    fs::create_dir(mine.parent().unwrap()).unwrap();
    fs::write(&mine, "mine").unwrap();
    let error = get(dest.path(), &FetchOptions::default()).0.unwrap_err();
    assert!(matches!(error, FetchError::InTheWay { .. }), "{error}");
    assert_eq!(fs::read(&mine).unwrap(), b"mine");

    let with = |url: &str, sha256: Option<&str>| {
        let options = FetchOptions {
            url: Some(url.into()),
            sha256: sha256.map(String::from),
            ..FetchOptions::default()
        };
        get(tempfile::tempdir().unwrap().path(), &options).0.unwrap_err()
    };
    assert!(matches!(with("ftp://example.org/a.tar.gz", None), FetchError::Address { .. }));
    assert!(matches!(with("no address", None), FetchError::Address { .. }));
    assert!(matches!(with("http://127.0.0.1:1/", Some("abc")), FetchError::NotAChecksum { .. }));
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = get(&file.path().join("sub"), &FetchOptions::default()).0.unwrap_err();
    assert!(matches!(error, FetchError::Disk { .. }), "{error}");
}

#[test]
fn two_processes_do_not_write_one_file() {
    let dest = tempfile::tempdir().unwrap();
    let part = fs::File::create(dest.path().join("cifar-100-binary.tar.gz.part")).unwrap();
    part.lock().unwrap();
    let options = FetchOptions { url: Some("http://127.0.0.1:1/".into()), ..FetchOptions::default() };
    let error = get(dest.path(), &options).0.unwrap_err();
    assert!(matches!(error, FetchError::Busy { .. }), "{error}");
}
