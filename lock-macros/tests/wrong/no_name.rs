#[leasehold::locked(ttl = "5s")]
async fn job() {}

fn main() {}
