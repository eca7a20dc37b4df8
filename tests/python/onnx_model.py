"""A digit classifier for MLServer by onnxruntime: what the packed pipeline does, in Python."""

import numpy
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        pixels = payload.inputs[0]
        rows = numpy.asarray(pixels.data, dtype=numpy.float32).reshape(pixels.shape)
        rows = numpy.clip(numpy.nan_to_num(rows), 0, 16) / 16
        (logits,) = self._session.run(None, {"x": rows})
        powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        chances = powers / powers.sum(axis=1, keepdims=True)
        output = ResponseOutput(
            name="probabilities", shape=list(chances.shape), datatype="FP32", data=chances.ravel().tolist()
        )
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
