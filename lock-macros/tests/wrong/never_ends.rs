#[leasehold::locked(name = "job")]
async fn job() -> ! {
    loop {}
}

fn main() {}
