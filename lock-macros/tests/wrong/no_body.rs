trait Job {
    #[leasehold::locked(name = "job")]
    async fn work(&self);
}

fn main() {}
