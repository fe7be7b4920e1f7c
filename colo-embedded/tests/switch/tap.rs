//! The TAP, where this may be tested: it takes root, and the `ip` command.

use crate::running::Running;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::Command;

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

#[test]
fn the_hosts_kernel_talks_to_the_switchs_stack() {
    let may = rustix::process::geteuid().is_root() && std::path::Path::new("/dev/net/tun").exists();
    if !may || !ip("link show lo") {
        eprintln!("left out: needs root, /dev/net/tun and ip");
        return;
    }
    let name = format!("colo{}", std::process::id() % 100_000);
    let _switch = Running::start_with(&[], |config| {
        config.tap = Some(name.clone());
        config.address = [10, 77, 201, 1].into();
    });
    assert!(ip(&format!("addr add 10.77.201.2/24 dev {name}")));
    assert!(ip(&format!("link set {name} up")));
    // Nobody listens there. That a refusal comes back takes ARP and TCP, both ways.
    let refused = TcpStream::connect("10.77.201.1:9").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
