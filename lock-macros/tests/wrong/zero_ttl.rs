#[leasehold::locked(name = "job", ttl = "0s")]
async fn job() {}

fn main() {}
