"""The part of the client that is about making and checking variants, for programs with threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemd.client import quantize_calls, verify_calls
from gemd.client.settings import QUICK_SECONDS
from gemd.client.sync_operations import OperationsClient

if TYPE_CHECKING:
    from gemd.client.operations import Operation


class MakingClient(OperationsClient):
    """What makes and checks variants of models; `Client` has the rest."""

    def quantize(
        self,
        model: str,
        quantization: str,
        *,
        source_variant: str = "",
        variant: str = "",
        force: bool = False,
        discard_source: bool = False,
        accept_licence: bool = False,
        quantize_dense: bool = False,
        importance_matrix: str = "",
        deadline: float = QUICK_SECONDS,
    ) -> Operation:
        """Begin to make a smaller variant, or join that work; follow it with `watch`.

        Args:
            model: Id, or absolute path of a GGUF file or of a checkpoint's directory.
            quantization: Such as ``Q4_K_M`` or ``NVFP4``.
            source_variant: What to start from; the best that is there if empty.
            variant: Id of the result; derived from `quantization` if empty.
            force: Make it again though it is there.
            discard_source: Remove what is fetched for it as soon as it is used up.
            accept_licence: The terms of the source, where it must be fetched, are agreed to.
            quantize_dense: NVFP4: the dense layers too, and not only the experts.
            importance_matrix: Absolute path of a GGUF file with one.
            deadline: In seconds, for the beginning.

        """
        call = quantize_calls.quantize(
            model,
            quantization,
            source_variant=source_variant,
            variant=variant,
            force=force,
            discard_source=discard_source,
            accept_licence=accept_licence,
            quantize_dense=quantize_dense,
            importance_matrix=importance_matrix,
        )
        return self._transport.unary(call, deadline)

    def verify(
        self,
        model: str,
        *,
        variant: str = "",
        full: bool = False,
        deadline: float = QUICK_SECONDS,
    ) -> Operation:
        """Begin to check the files of a model, or join that; follow it with `watch`.

        `raw.verify` of its last snapshot has the checks. A variant that fails one is not served.

        Args:
            model: Id, or absolute path of a file.
            variant: Id; all that are on disk if empty.
            full: Also load it, ask it something, and compare it with its source.
            deadline: In seconds, for the beginning.

        """
        call = verify_calls.verify(model, variant=variant, full=full)
        return self._transport.unary(call, deadline)
