//! A disk that fills up while the daemon writes: it stops at once and says so, and what was
//! committed before is there after space was made.

mod common;

use std::{ffi::CString, fs::File, io::Write, os::unix::ffi::OsStrExt, path::Path};

use common::{Daemon, Folder, NOWHERE, anvil, block_on, config};
use serde_json::json;
use tempfile::TempDir;

/// Room for the store to come up and write for a while; it prepares 64 MiB of write-ahead log.
const DISK: &str = "size=96m";

/// A small filesystem of our own, unmounted when dropped.
struct Disk(TempDir);

impl Disk {
    /// `None` where mounting is not permitted.
    fn mount() -> Option<Disk> {
        let dir = TempDir::new().unwrap();
        let place = c_path(dir.path());
        let (kind, options) = (CString::new("tmpfs").unwrap(), CString::new(DISK).unwrap());
        // SAFETY: all four are strings that live until the call returns.
        let mounted = unsafe {
            libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
        };
        (mounted == 0).then_some(Disk(dir))
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) {
        let mut file = File::create(self.0.path().join("filler")).unwrap();
        for block in [vec![1; 1 << 20], vec![1; 1 << 10], vec![1; 1]] {
            while file.write_all(&block).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let place = c_path(self.0.path());
        // SAFETY: a string that lives until the call returns.
        unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

#[test]
fn a_disk_that_is_full_from_the_start_is_9() {
    let Some(disk) = Disk::mount() else {
        eprintln!("SKIPPED a_disk_that_is_full_from_the_start_is_9: mounting a tmpfs needs root");
        return;
    };
    let folder = folder_on(&disk, NOWHERE);
    disk.fill();
    folder.fails(&["run"], 9, &["cannot open the data directory", "help: free space"]);
    disk.make_room();
    folder.start().stop();
}

/// A folder whose data directory is on this disk.
fn folder_on(disk: &Disk, endpoint: &str) -> Folder {
    let data_dir = disk.0.path().join("data");
    Folder::with_config(&config(endpoint).replace("\"data\"", &format!("{data_dir:?}")))
}

#[test]
fn a_full_disk_is_9_and_loses_nothing() {
    let Some(disk) = Disk::mount() else {
        eprintln!("SKIPPED a_full_disk_is_9_and_loses_nothing: mounting a tmpfs needs root");
        return;
    };
    let anvil = anvil(31337);
    block_on(anvil.mine(20)).unwrap();
    let folder = folder_on(&disk, anvil.http_url().as_str());
    let daemon = folder.start();
    follow_to(&folder, 20);
    disk.fill();
    // Mines until the daemon has ended: how much still fits is the engine's business.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                block_on(anvil.mine(20)).unwrap();
            }
        });
        let ended = daemon.end();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        ended
    });
    assert_eq!(ended.code, Some(9), "{ended:?}");
    assert_eq!(ended.stderr.matches("error: ").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("a write to the data directory failed"), "{}", ended.stderr);
    assert!(ended.stderr.contains("help: free space"), "{}", ended.stderr);

    disk.make_room();
    let verified = &folder.json(&["journal", "verify", "--json"])[0];
    assert_eq!(verified["problems"], json!([]));
    let before = verified["blocks"].as_u64().unwrap();
    let daemon = folder.start();
    let head = block_on(anvil.block_number()).unwrap();
    follow_to(&folder, head);
    daemon.stop();
    let verified = &folder.json(&["journal", "verify", "--json"])[0];
    assert_eq!((&verified["blocks"], &verified["problems"]), (&json!(head + 1), &json!([])));
    assert!((21..=head + 1).contains(&before), "{before} blocks were kept");
}

/// Returns once the daemon has journaled this block.
fn follow_to(folder: &Folder, number: u64) {
    let mut tail = Daemon::spawn(folder.command(&["journal", "tail", "-f", "--json"]));
    while !tail.next_line().unwrap().contains(&format!("\"number\":{number},")) {}
}
