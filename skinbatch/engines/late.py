"""Create the engine only when a worker is needed, so that a run with nothing to do starts none."""

from __future__ import annotations

from skinbatch import signals
from skinbatch.config import Config, EngineSettings
from skinbatch.engines.pool import Engine, WorkerPool
from skinbatch.engines.setup import Prepared
from skinbatch.ray_environment import cluster_address, settle
from skinbatch.scoring.assignment import ScoringContext


class LateEngine:
    """Stand in for the engine of `settings`, without importing or starting Ray too early.

    prepared: the run that uses the engine; must be set before the engine is made.
    """

    def __init__(self, settings: EngineSettings) -> None:
        """Raise UsageError for settings that this engine does not accept."""
        self.settings = settings
        self.prepared: Prepared | None = None
        self._engine: Engine | None = None
        if settings.name == "local":
            from skinbatch.engines.local import LocalEngine

            self._local = LocalEngine(settings)

    def made(self) -> Engine:
        """Return the engine; the first call makes and checks it.

        Raises UsageError if the settings ask for workers that cannot be had.
        """
        assert self.prepared is not None
        if self._engine is None:
            with signals.heard_by(signals.interrupt):  # Ctrl-C need not wait for a slow cluster
                self._engine = self._make()
                self._engine.check(
                    self.prepared.source_uri,
                    self.prepared.context.destination,
                    self.prepared.context.config,
                )
        return self._engine

    def expect_work(self) -> None:
        """Make the engine, as there is work to do, and let a local worker load its models already.

        Raises UsageError as `made`.
        """
        assert self.prepared is not None
        engine = self.made()
        if self.settings.name == "local" and engine is self._local:
            self._local.begin(self.prepared.context)

    def _make(self) -> Engine:
        if self.settings.name == "local":
            return self._local
        settle(cluster_address(self.settings.ray_address))  # before ray is imported
        from skinbatch.engines.ray_engine import RayEngine

        return RayEngine(self.settings)

    def check(self, source: str, destination: str, config: Config) -> None:
        """Make the engine, which runs its own check."""
        self.made()

    def start(self, context: ScoringContext) -> WorkerPool:
        return self.made().start(context)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
