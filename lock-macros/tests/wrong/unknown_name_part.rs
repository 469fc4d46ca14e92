#[leasehold::locked(name = "mail-{shrad}")]
async fn job(shard: u32, day: u32) {}

fn main() {}
