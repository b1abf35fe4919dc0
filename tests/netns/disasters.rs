//! A majority that is lost for good, and a disk that is full.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lvsmesh_tests::document::{Document, FLEET, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::{Fleet, eventually, link, pace};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

#[test]
fn the_vips_come_back_on_the_survivor_and_the_old_majority_does_not_get_them() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    fleet.held_by(LVS_1.0);
    fleet.kill(LVS_1.0);
    fleet.kill(RS_1.0);
    fleet.ctl.endpoints = vec![format!("{}:7400", LVS_2.1)];
    eventually("there is no quorum", Duration::from_secs(30), || {
        (fleet.ctl.run(&["status"]).code == 6).then_some(())
    });
    // A guard is quick: the one that is left may have won a lease before the third was killed.
    eventually("nobody has the VIP", Duration::from_secs(20), || {
        fleet.attached().is_empty().then_some(())
    });

    fleet.agent_mut(LVS_2.0).end(Signal::SIGTERM);
    let shown = fleet.agent(LVS_2.0).once(&["recover", "inspect"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("fleet      lab, epoch 0"), "{shown}");
    let force = ["recover", "force-new-fleet", "--fleet", FLEET, "--survivor", LVS_2.0];
    fleet.agent(LVS_2.0).succeed(&force);
    fleet.agent_mut(LVS_2.0).start();
    fleet.held_by(LVS_2.0);
    let status = fleet.until("one node", Duration::from_secs(10), |status| status.nodes.len() == 1);
    assert!(status.quorum, "{:?}", status.warnings);

    // Both others come back, disks and all: a majority of the old epoch.
    fleet.agent_mut(LVS_1.0).start();
    fleet.agent_mut(RS_1.0).start();
    pace::throughout("the survivor alone has the VIP", Duration::from_secs(6), || {
        let attached = fleet.attached();
        (attached != [LVS_2.0]).then(|| format!("{attached:?} have the VIP"))
    });
    let mut there = fleet.ctl.clone();
    for (name, address) in [LVS_1, RS_1] {
        there.endpoints = vec![format!("{address}:7400")];
        eventually(&format!("{name} is told"), Duration::from_secs(20), || {
            there.run(&["status"]).out.contains("no node of the fleet (superseded)").then_some(())
        });
    }
    // Wiped, one of them joins and gets the VIP back.
    fleet.agent_mut(LVS_1.0).end(Signal::SIGTERM);
    fleet.agent(LVS_1.0).succeed(&["leave"]);
    fleet.agent(LVS_1.0).join(&format!("{}:7400", LVS_2.1));
    fleet.agent_mut(LVS_1.0).start();
    fleet.until("two voters", Duration::from_secs(30), |status| {
        status.node(LVS_1.0).is_some_and(|node| node.id == 4 && node.raft == "voter")
    });
    let _moved = fleet.ctl.run(&["failover", "--to", LVS_1.0]).succeeded();
    fleet.held_by(LVS_1.0);
}

/// A file system of its own in place of a directory, with what was in it.
struct Small(PathBuf);

impl Small {
    fn replace(directory: &Path, kilobytes: u64) -> Self {
        let away = directory.with_extension("away");
        std::fs::rename(directory, &away).expect("the lab's directory is writable");
        std::fs::create_dir(directory).expect("the lab's directory is writable");
        let options = format!("size={kilobytes}k,mode=700");
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("root may mount a tmpfs");
        let small = Self(directory.to_owned());
        for entry in std::fs::read_dir(&away).expect("it was just moved").flatten() {
            std::fs::copy(entry.path(), directory.join(entry.file_name()))
                .expect("what was there fits");
        }
        small
    }

    fn resize(&self, kilobytes: u64) {
        let options = format!("size={kilobytes}k");
        let none: Option<&str> = None;
        mount(none, &self.0, none, MsFlags::MS_REMOUNT, Some(options.as_str()))
            .expect("root may resize a tmpfs");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Also while an agent still runs there.
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The reference deployment and a pool that no service uses, of many real servers of that weight.
fn bulky(weight: u32) -> Document {
    let mut document = Document::reference("0s");
    let mut pool = "  - name: bulk\n    real_servers:\n".to_owned();
    for number in 0..2000_u32 {
        let (high, low) = (number / 250, number % 250 + 1);
        pool += &format!("      - {{ address: 10.1.{high}.{low}, port: 80, weight: {weight} }}\n");
    }
    document.rest = document.rest.replace("services:\n", &format!("{pool}services:\n"));
    document
}

#[test]
fn a_node_whose_disk_is_full_says_so_and_keeps_its_kernel_up_while_the_others_go_on() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::reference("0s"));
    let namespace = fleet.lab.node(RS_1.0).namespace.clone();
    let carries = || link::has_address(&namespace, "lo", VIP);
    eventually("the realserver's side stands", Duration::from_secs(20), || carries().then_some(()));

    fleet.agent_mut(RS_1.0).end(Signal::SIGTERM);
    let data = fleet.agent(RS_1.0).data();
    let log = std::fs::metadata(data.join("raft.redb")).map_or(0, |file| file.len());
    let small = Small::replace(&data, log / 1024 + 128);
    fleet.agent_mut(RS_1.0).start();

    let mut weight = 1;
    let status = eventually("its log is full", Duration::from_secs(60), || {
        weight += 1;
        // The two others are a majority: they take every change.
        fleet.apply(&bulky(weight));
        let status = fleet.ctl.status()?;
        let node = status.node(RS_1.0)?;
        node.warnings.iter().any(|line| line.contains("its log failed")).then_some(status)
    });
    assert!(status.quorum, "{:?}", status.warnings);
    let complaint = status.complaints();
    assert!(complaint.contains("No space left on device"), "{complaint}");
    assert!(complaint.contains("neither votes nor acknowledges"), "{complaint}");
    link::delete_address(&namespace, "lo", VIP);
    eventually("what it had applied is kept up", Duration::from_secs(10), || {
        carries().then_some(())
    });
    // A write that is asked of it goes to nobody, and says so.
    let mut there = fleet.ctl.clone();
    there.endpoints = vec![format!("{}:7400", RS_1.1)];
    let refused = there.apply(&Document::vip_alone().yaml(), &[]);
    assert_eq!(refused.code, 1, "{}{}", refused.out, refused.err);
    assert!(refused.err.contains("takes no part in the fleet"), "{}", refused.err);

    // Started again with the disk still full it is no worse; with room it catches up.
    let ended = fleet.agent_mut(RS_1.0).end(Signal::SIGTERM);
    assert!(!ended.success(), "whoever looks at the unit sees that something is wrong");
    small.resize(256 * 1024);
    fleet.agent_mut(RS_1.0).start();
    let revision = fleet.ctl.status().map_or(0, |status| status.revision);
    fleet.until("it has caught up", Duration::from_secs(40), |status| {
        let node = status.node(RS_1.0);
        node.is_some_and(|node| node.revision >= revision && node.warnings.is_empty())
    });
    assert!(carries());
    fleet.agent_mut(RS_1.0).end(Signal::SIGTERM);
    drop(small);
}
