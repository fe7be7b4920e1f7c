//! Two servers of one disk, as two hosts have them that reach one.

use super::*;
use colo_core::disk::control::Observer;

const SIZE: usize = 1 << 20;

/// Both over one file of ones.
fn hosts(name: &str) -> Hosts {
    let folder = Folder::new(name);
    fs::write(folder.path("disk"), vec![1; SIZE]).unwrap();
    let (primary, secondary) = (start(&folder, "p", &[]), start(&folder, "s", &["--journal", &folder.path("journal")]));
    Hosts { folder, primary, secondary }
}

fn start(folder: &Folder, host: &str, more: &[&str]) -> Serving {
    let (disk, socket) = (folder.path("disk"), folder.path(&format!("{host}.socket")));
    let control = folder.path(&format!("{host}.control"));
    let arguments = ["--shared", "--backing", &disk, "--socket", &socket, "--control", &control];
    let mut serving = Serving::start(&[&arguments, more].concat());
    let told = serving.told();
    assert!(told.starts_with(&format!("colo: {disk} (1048576 bytes) is shared with another host, at ")), "{told}");
    serving
}

/// A client of a host's disk server, as its guest is one.
fn client(hosts: &Hosts, host: &str) -> Client {
    let address = format!("nbd+unix:///disk?socket={}", hosts.folder.path(&format!("{host}.socket")));
    Client::connect(&address.parse().unwrap(), ClientConfig::default()).unwrap()
}

fn status(hosts: &Hosts, host: &str) -> String {
    let (code, told, said) = disk(&["status", "--control", &hosts.folder.path(&format!("{host}.control"))]);
    assert_eq!((code, said), (Some(0), String::new()));
    told
}

#[test]
fn a_host_that_dies_leaves_the_disk_at_its_epoch_and_what_the_other_has_written() {
    let hosts = hosts("shared");
    let before = client(&hosts, "p");
    before.write(0, &[2; 4096]).unwrap();
    let (mut primary, mut secondary) = hosts.protect();
    checkpoint(&mut primary, &mut secondary, Epoch(1));
    let (ours, theirs) = (before, client(&hosts, "s"));
    ours.write(8192, &[3; 8192]).unwrap();
    checkpoint(&mut primary, &mut secondary, Epoch(2));
    for told in [status(&hosts, "p"), status(&hosts, "s")] {
        assert!(told.contains("\ndisk         shared with the other host\nstate        in step\n"), "{told}");
    }
    let control = hosts.folder.path("p.control");
    let why = "the disks are shared: both hosts have the same ones, and there is nothing to compare";
    let refused = (Some(1), String::new(), format!("colo: {control}: {why}\n"));
    assert_eq!(disk(&["verify", "--control", &control]), refused);

    // This does not count, and is on the disk all the same.
    ours.write(0, &[4; 65_536]).unwrap();
    ours.write_zeroes(500_000, 100_000, true).unwrap();
    theirs.write(10_000, &[5; 1000]).unwrap();
    let mut expected = vec![1; SIZE];
    expected[..4096].fill(2);
    expected[8192..16_384].fill(3);
    expected[10_000..11_000].fill(5);
    let mut seen = vec![0; SIZE];
    theirs.read(0, &mut seen).unwrap();
    assert!(seen == expected);
    assert_eq!(hosts.bytes("disk")[..65_536], [4; 65_536]);

    // The primary's host dies.
    let Hosts { folder, primary: server, secondary: serving } = hosts;
    drop((ours, server, primary));
    assert!(secondary.fail_over().is_err(), "nobody has fenced it");
    secondary.fenced();
    secondary.fail_over().unwrap();
    // And then the other, before it can say a word.
    drop(serving);
    drop((secondary, theirs));
    let again = start(&folder, "s", &["--journal", &folder.path("journal")]);
    assert_eq!(Observer::connect(Path::new(&folder.path("s.control"))).unwrap().role().to_string(), "primary");
    again.stop();
    assert!(fs::read(folder.path("disk")).unwrap() == expected);
}

#[test]
fn a_guest_whose_protection_was_killed_writes_when_it_may() {
    let hosts = hosts("released");
    let (mut primary, mut secondary) = hosts.protect();
    checkpoint(&mut primary, &mut secondary, Epoch(1));
    // `colo primary` is killed.
    drop(primary);
    let told = status(&hosts, "p");
    let held =
        "state        not protected, and the guest's writes wait until it is known that the other host does not serve";
    assert!(told.contains(held), "{told}");
    let writing = std::thread::spawn({
        let ours = client(&hosts, "p");
        move || ours.write(0, &[7; 512]).unwrap()
    });
    let control = hosts.folder.path("p.control");
    assert_eq!(disk(&["release", "--control", &control]), (Some(0), String::new(), String::new()));
    writing.join().unwrap();
    assert_eq!(hosts.bytes("disk")[..512], [7; 512]);
    let told = status(&hosts, "p");
    assert!(told.contains("state        not protected\n"), "{told}");
    let secondarys = hosts.folder.path("s.control");
    drop(secondary);
    let why = "it serves the disk of a secondary, and that of a primary is wanted";
    let refused = (Some(1), String::new(), format!("colo: {secondarys}: {why}\n"));
    assert_eq!(disk(&["release", "--control", &secondarys]), refused);
    let Hosts { primary, secondary, .. } = hosts;
    secondary.stop();
    primary.stop();
}

#[test]
fn shared_disks_are_refused_without_a_fence() {
    let hosts = hosts("unfenced");
    let (ours, theirs) = (hosts.folder.path("p.control"), hosts.folder.path("s.control"));
    let secondary = ["secondary", "--listen", "127.0.0.1:0", "--hypervisor", "xen", "--disk-control", &theirs];
    let primary = ["primary", "--domain", "web", "--peer", "b", "--hypervisor", "xen", "--disk-control", &ours];
    for (arguments, more, path, end) in [
        (&secondary[..], None, &theirs, "give a --fence-command"),
        (&secondary, Some("--promote-unfenced"), &theirs, "give a --fence-command instead of --promote-unfenced"),
        (&primary, None, &ours, "give a --fence-command"),
    ] {
        let output = Command::new(COLO).args(arguments).args(more).env_remove("RUST_LOG").output().unwrap();
        let why = "the disks are shared with the other host, so that must be dead before this one goes on alone";
        let said = format!("colo: --disk-control: {path}: {why}: {end}\n");
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(2), said));
        assert!(output.stdout.is_empty());
    }
    // With one that is not what is missing.
    let fenced = Command::new(COLO).args(secondary).args(["--fence-command", "true"]).env_remove("RUST_LOG").output();
    let said = String::from_utf8(fenced.unwrap().stderr).unwrap();
    assert!(said.starts_with("colo: this is not a Xen host"), "{said}");
}

#[test]
fn what_does_not_go_with_a_shared_disk_is_said() {
    let folder = Folder::new("unshared");
    let (disk, socket, control) = (folder.disk(1 << 20), folder.path("socket"), folder.path("control"));
    let serve = ["--backing", &disk, "--socket", &socket];
    for (more, why) in [
        (vec!["--shared"], "--control <PATH>"),
        (vec!["--shared", "--control", &control, "--durability", "disk"], "cannot be used with"),
        (vec!["--shared", "--control", &control, "--copy-limit", "1M"], "cannot be used with"),
        (vec!["--shared", "--control", &control, "--read-only"], "cannot be used with"),
    ] {
        let (code, said) = Serving::start(&[&serve[..], &more].concat()).end();
        assert!(code == Some(2) && said.contains(why), "{more:?}: {said}");
    }
    // Whoever has it for himself alone does not share it, and the other way round.
    let own = {
        let mut serving = Serving::start(&serve);
        serving.told();
        serving
    };
    let other = folder.path("other");
    let shared = ["--shared", "--backing", &disk, "--socket", &other, "--control", &control];
    let locked = "another process has locked it; a disk has one server, or several that only read";
    assert_eq!(Serving::start(&shared).end(), (Some(1), format!("colo: {disk}: {locked}\n")));
    own.stop();
    let mut sharing = Serving::start(&shared);
    assert!(sharing.told().contains("shared with another host"));
    assert_eq!(Serving::start(&serve).end(), (Some(1), format!("colo: {disk}: {locked}\n")));
    assert_eq!(super::disk(&["release", "--control", &folder.path("nobody")]).0, Some(1));
    sharing.stop();
}

#[test]
fn a_journal_says_of_which_kind_its_disks_are() {
    let hosts = hosts("journal");
    let (mut primary, mut secondary) = hosts.protect();
    checkpoint(&mut primary, &mut secondary, Epoch(1));
    checkpoint(&mut primary, &mut secondary, Epoch(2));
    drop((primary, secondary));
    let Hosts { folder, primary, secondary } = hosts;
    secondary.stop();
    primary.stop();
    let path = |name: &str| folder.path(name);
    let (disk, socket, control, journal) = (path("disk"), path("s.socket"), path("s.control"), path("journal"));
    let own = ["--backing", &disk, "--socket", &socket, "--control", &control, "--journal", &journal];
    let (code, said) = Serving::start(&own).end();
    let why = "the journal is of disks that are shared with another host, and these are not";
    assert!(code == Some(1) && said.contains(why) && said.lines().count() == 1, "{said}");
}
