//! The process may end between any two frames: what the store holds then is enough to go on.

use super::*;

/// A copy of the store as a process leaves it that is killed now. Nothing may be written meanwhile.
struct Image(PathBuf);

impl Image {
    fn of(world: &World, number: usize) -> Self {
        let path = world.store.with_extension(format!("image-{number}"));
        for suffix in ["", "-wal"] {
            let name = |store: &Path| format!("{}{suffix}", store.display());
            std::fs::copy(name(&world.store), name(&path)).expect("copy the store");
        }
        Self(path)
    }

    /// The next process, which finds it.
    fn process(&self, world: &World, begin: &ResumeToken) -> Side {
        let connector = connector(Options { store: self.0.clone(), ..world.options() });
        let known = Identity::from([("database".to_owned(), "00000000-0000-0000-0000-000000000000".to_owned())]);
        Side { known, begin: begin.clone(), ..Side::with(connector, "t") }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_whole_between_any_two_frames() {
    let world = World::new(&["t"]);
    fill(&world, 0..120, "old");
    world.server.hold(true);
    let mut side = Side::first(&world, "t").await;
    let begin = side.begin.clone();
    let mut images = Vec::new();
    let frame = |images: &mut Vec<Image>| {
        // The next frame is asked for when this one is durable.
        world.server.wait_until_asked("t");
        images.push(Image::of(&world, images.len()));
        world.server.answer_one("t");
    };
    // 120 documents in frames of 50, and `ready`.
    (0..4).for_each(|_| frame(&mut images));
    world.server.wait_until_asked("t");
    let (state, first_cut) = (rows(&mut side).await, head(&mut side.connector).await);
    assert_eq!(state.len(), 120);
    let incomplete = images.len();
    for round in 0..4 {
        fill(&world, 10 * round..10 * round + 5, &format!("round {round}"));
        (0..3).for_each(|id| world.server.remove("t", &json!(40 + 3 * round + id)));
        fill(&world, 200 + round..201 + round, "added");
        frame(&mut images);
    }
    // A scan that finds what was missed, deletes too.
    world.server.wait_until_asked("t");
    let mut stream = side.connect(&first_cut).await;
    world.server.kill();
    (60..70).for_each(|id| world.server.remove("t", &json!(id)));
    fill(&world, 70..75, "while away");
    world.server.restart();
    let (_, failed) = stream.failure().await;
    assert_eq!(failed.fault(), Fault::Transient, "{failed}");
    drop(stream);
    drop(side.connect(&first_cut).await);
    (0..4).for_each(|_| frame(&mut images));
    world.server.wait_until_asked("t");
    images.push(Image::of(&world, images.len()));
    drop(side);
    world.server.hold(false);
    for (number, image) in images.iter().enumerate() {
        // One reader had confirmed the first rows, another one nothing.
        let mut next = image.process(&world, &begin);
        drop(next.connect(&begin).await);
        // Before the rows are read: the scan goes on meanwhile, and what it finds is told again.
        let from = head(&mut next.connector).await;
        let read = rows(&mut next).await;
        caught_up(&mut next, &world, "t", &from, read).await;
        drop(next);
        if incomplete <= number {
            let mut next = image.process(&world, &begin);
            caught_up(&mut next, &world, "t", &first_cut, state.clone()).await;
        }
    }
}
