#[leasehold::locked(name = "job")]
fn job() {}

fn main() {}
