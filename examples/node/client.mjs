// Calls lstmserve from Node with the stock gRPC client and nothing but the .proto file.
//
//     npm ci && node client.mjs [HOST:PORT] < numbers      one number a line: a series, fed step by step
//
// Prints one line of JSON: the output of every Step, the last output of one Forward, and the steps that the state has seen.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const root = fileURLToPath(new URL("../../proto", import.meta.url));
const definition = protoLoader.loadSync("lstmserve/v1/lstm.proto", { includeDirs: [root], enums: String, longs: Number });
const { LstmService } = grpc.loadPackageDefinition(definition).lstmserve.v1;

const service = new LstmService(process.argv[2] ?? "localhost:50051", grpc.credentials.createInsecure());
const call = (method) => promisify(service[method]).bind(service);
const floats = (numbers) => Buffer.from(Float32Array.from(numbers).buffer); // little-endian on every machine that runs Node
const numbers = (tensor) => Array.from(new Float32Array(Uint8Array.from(tensor.data).buffer));

const series = readFileSync(0, "utf8").trim().split(/\s+/).map(Number);

const outputs = [];
let state; // left out of the first call: a new sequence
for (const value of series) {
  const x = { dtype: "DATA_TYPE_FLOAT32", shape: [1, 1], data: floats([value]) };
  const response = await call("Step")({ x, state });
  outputs.push(numbers(response.output)[0]);
  state = response.state; // the caller carries it to the next call
}

const x = { dtype: "DATA_TYPE_FLOAT32", shape: [1, series.length, 1], data: floats(series) };
const whole = await call("Forward")({ x });

console.log(JSON.stringify({ outputs, last: numbers(whole.output)[0], steps: state.stepsSeen }));
service.close();
