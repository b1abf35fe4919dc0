//! Marks, as the kernel in memory and Linux have them.

use std::process::Command;

use lvsmesh_core::model::{PortRange, Protocol};
use lvsmesh_core::plan::Action;
use lvsmesh_core::plan::marks::{MarkRule, Marks, Seen};
use lvsmesh_kernel::fake::FakeKernel;
use lvsmesh_kernel::{Kernel, Linux, Scope};

use crate::{namespace, perform};

fn rule(mark: u32, addresses: &[&str], protocol: Protocol, ports: &[(u16, u16)]) -> MarkRule {
    MarkRule {
        mark,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        protocol,
        ports: ports.iter().map(|&(first, last)| PortRange { first, last }).collect(),
    }
}

async fn seen<K: Kernel>(kernel: &mut K) -> Seen {
    kernel.observe(&Scope { marks: true, ..Scope::default() }).await.unwrap().marks
}

async fn marks_are_replaced_as_a_whole<K: Kernel>(mut kernel: K) {
    assert_eq!(seen(&mut kernel).await, Seen::Absent);
    // One and several of everything: nft writes single ones in another way.
    for marks in [
        Marks::from([rule(7, &["192.0.2.1"], Protocol::Tcp, &[(80, 80)])]),
        Marks::from([
            rule(
                7,
                &["192.0.2.1", "192.0.2.2"],
                Protocol::Tcp,
                &[(80, 80), (443, 443), (8000, 8099)],
            ),
            rule(u32::MAX, &["2001:db8::1", "2001:db8::2"], Protocol::Udp, &[(1, 65535)]),
            rule(9, &["2001:db8::3"], Protocol::Sctp, &[(5060, 5061)]),
        ]),
        Marks::new(),
    ] {
        perform(&mut kernel, [Action::SetMarks(marks.clone())]).await;
        assert_eq!(seen(&mut kernel).await, Seen::Present { rules: Some(marks) });
    }
    perform(&mut kernel, [Action::ClearMarks]).await;
    assert_eq!(seen(&mut kernel).await, Seen::Absent);
    assert!(kernel.perform(&Action::ClearMarks).await.is_err(), "there is nothing left");
}

#[tokio::test]
async fn fake_marks_are_replaced_as_a_whole() {
    marks_are_replaced_as_a_whole(FakeKernel::new(&[])).await;
}

#[test]
fn linux_marks_are_replaced_as_a_whole() {
    namespace::run(|| async { marks_are_replaced_as_a_whole(Linux::open().unwrap()).await });
}

#[test]
fn linux_what_others_did_to_the_table_is_seen() {
    namespace::run(|| async {
        let mut kernel = Linux::open().unwrap();
        let marks = Marks::from([rule(7, &["192.0.2.1"], Protocol::Tcp, &[(80, 80)])]);
        for tampering in [
            "add rule inet lvsmesh prerouting tcp dport 81 drop",
            "insert rule inet lvsmesh prerouting accept",
            "flush chain inet lvsmesh prerouting",
            "add chain inet lvsmesh other",
            "chain inet lvsmesh prerouting { policy drop; }",
        ] {
            perform(&mut kernel, [Action::SetMarks(marks.clone())]).await;
            let done = Command::new("nft").args(tampering.split(' ')).status().unwrap();
            assert!(done.success(), "{tampering}");
            assert_ne!(
                seen(&mut kernel).await,
                Seen::Present { rules: Some(marks.clone()) },
                "{tampering}"
            );
        }
    });
}
