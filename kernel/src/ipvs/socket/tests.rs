//! The generic netlink controller is on every kernel and answers anybody, so the way of asking can be tested everywhere.

use super::super::codec::attribute;
use super::*;

// <linux/genetlink.h>
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

fn family(name: &str) -> Request {
    let name = [name.as_bytes(), &[0]].concat();
    Request {
        family: GENL_ID_CTRL,
        command: CTRL_CMD_GETFAMILY,
        version: 2,
        attributes: attribute(CTRL_ATTR_FAMILY_NAME, &name),
    }
}

#[tokio::test]
async fn each_of_many_requests_gets_its_own_outcome_in_order() {
    let mut socket = Socket::open().unwrap();
    for count in [0, 1, 2, IN_FLIGHT, IN_FLIGHT + 1, 5 * IN_FLIGHT] {
        let bad = |at: usize| at % 3 == 2 || at == IN_FLIGHT - 1;
        let requests: Vec<_> =
            (0..count).map(|at| family(if bad(at) { "no such" } else { "nlctrl" })).collect();
        let outcomes = socket.submit(&requests).await;
        assert_eq!(outcomes.len(), count);
        for (at, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Ok(()) => assert!(!bad(at), "{at} of {count}"),
                Err(Failure::Errno(Errno::ENOENT)) => assert!(bad(at), "{at} of {count}"),
                Err(failure) => panic!("{at} of {count}: {failure:?}"),
            }
        }
    }
    // What was left unread does not become the answer to the next question.
    assert_eq!(socket.ask(&family("nlctrl")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn lost_answers_leave_open_what_became_of_the_requests() {
    let mut socket = Socket::open().unwrap();
    // Every refusal and every answer to "nlctrl" takes room; this has none for so many.
    socket.handle.socket_ref().set_rx_buf_sz(1).unwrap();
    let requests: Vec<_> = (0..IN_FLIGHT).map(|_| family("nlctrl")).collect();
    for outcome in socket.submit(&requests).await {
        assert!(matches!(outcome, Err(Failure::Errno(Errno::ENOBUFS))), "{outcome:?}");
    }
    socket.handle.socket_ref().set_rx_buf_sz(1 << 18).unwrap();
    assert_eq!(socket.ask(&family("nlctrl")).await.unwrap().len(), 1, "the next one is answered");
}

#[tokio::test]
async fn a_listing_is_read_to_its_end() {
    let mut socket = Socket::open().unwrap();
    let all = Request { attributes: Attributes::new(), ..family("") };
    let families = socket.list(&all).await.unwrap();
    assert!(families.len() > 1, "{}", families.len());
}

#[test]
fn a_datagram_is_cut_where_its_messages_say_and_never_read_past_its_end() {
    let mut datagram = Vec::new();
    encode(&mut datagram, &family("one"), NLM_F_REQUEST, 7);
    encode(&mut datagram, &family("second"), NLM_F_REQUEST, 8);
    let found: Vec<_> = messages(&datagram).map(|message| message.unwrap().sequence).collect();
    assert_eq!(found, [7, 8]);

    assert_eq!(message(&datagram).unwrap().1, 28, "the first one's length");
    for cut in 1..datagram.len() {
        let found: Vec<_> = messages(&datagram[..cut]).collect();
        let whole = found.iter().filter(|message| message.is_ok()).count();
        assert_eq!(whole, usize::from(cut >= 28), "cut at {cut}");
        assert_eq!(found.len() - whole, usize::from(cut != 28), "cut at {cut}");
    }
}
