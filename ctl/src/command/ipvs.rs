//! `lvsctl ipvs`.

use lvsmesh_proto::v1;

use crate::client::{Client, Repeat};
use crate::failure::Failure;
use crate::output::{Done, Format, present};
use crate::render;

pub(super) async fn run(client: &Client, format: Format, node: String) -> Result<Done, Failure> {
    let request = v1::ListIpvsRequest { node };
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.list_ipvs(request).await)
        .await?;
    present(format, &render::ipvs::tree(&answer), || render::ipvs::listing(&answer))
        .map(Done::printed)
}
