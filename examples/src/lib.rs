//! Short programs that embed colo; each is a binary under `src/bin/`.
