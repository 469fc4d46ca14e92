#[leasehold::locked(name = "mail-{shard")]
async fn job(shard: u32) {}

fn main() {}
