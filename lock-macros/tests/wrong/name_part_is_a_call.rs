#[leasehold::locked(name = "mail-{shard.next()}")]
async fn job(shard: u32) {}

fn main() {}
