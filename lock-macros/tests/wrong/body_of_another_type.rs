#[leasehold::locked(name = "job")]
async fn job() -> u32 {
    "seven"
}

fn main() {}
