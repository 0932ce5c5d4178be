//! Puts a restored copy in force: see [`crate::recovery`].

use std::time::SystemTime;

use fusebox_policy::invalid::Faults;
use fusebox_proto::v1;
use prost::Message as _;
use tonic::{Response, Status};

use crate::{
    caller::Caller,
    fleet::check_reason,
    grpc::{requests, status},
    policies::Policies,
    recovery::{AdoptError, Adopted},
    store::{Adoption, Note, Once},
};

pub(super) async fn adopt(
    policies: &Policies,
    caller: Caller,
    request: v1::AdoptPresentRequest,
) -> Result<Response<v1::AdoptPresentResponse>, Status> {
    let key = requests::key("AdoptPresent", &request.request_id, &request)?;
    let v1::AdoptPresentRequest { reason, request_id: _, validate_only } = request;
    let key = key.filter(|_| !validate_only);
    let mut faults = Faults::new();
    check_reason(&reason, &mut faults);
    faults.into_result(Some(())).map_err(|invalid| status::invalid_request(&invalid))?;
    let note = Note { caller: caller.asking(key.as_ref()), message: reason, at: SystemTime::now() };
    let answer = |done: &Adoption| Adopted::of(done).as_ref().map(adopted).unwrap_or_default().encode_to_vec();
    let once = key.map(|key| Once::new(key, answer));
    let done = match policies.adopt_present(note, validate_only, once).await {
        Ok(done) => Ok(done),
        Err(AdoptError::Store(error)) => Err(error),
        Err(error @ AdoptError::NotRegressed(_)) => return Err(status::adopt(&error)),
    };
    requests::respond(done, adopted, |error| status::store(&error))
}

fn adopted(done: &Adopted) -> v1::AdoptPresentResponse {
    let Adopted { revision, restored, seen, policies } = done;
    v1::AdoptPresentResponse {
        revision: revision.0,
        restored_revision: restored.0,
        seen_revision: seen.0,
        policies: u32::try_from(*policies).unwrap_or(u32::MAX),
    }
}
