//! The gate: may anything be fetched from an issuer that nobody vouches for but these two files?
//!
//! An unverified token names its own issuer. Before that issuer is contacted, the organization's
//! list and the policy that the request names must both admit it; only then is there an
//! [`Admission`].

use super::{Policy, TrustedIssuers};
use crate::{
    name::{Issuer, Owner},
    oidc::Admission,
};

/// Permission to verify an issuer's token, if `owner`'s list and policy both admit the issuer. No
/// list (proven absent, or not visible) admits all; a list in `audit` mode refuses none.
pub fn admit(
    list: Option<&TrustedIssuers>,
    policy: &Policy,
    issuer: &Issuer,
    owner: &Owner,
) -> Option<Admission> {
    let listed = list.is_none_or(|list| list.verdict(issuer).allows());
    (listed && policy.admit(issuer)).then(|| Admission::by_gate(issuer, owner))
}
