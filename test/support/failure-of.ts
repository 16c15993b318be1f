import { MooncakeError } from 'mooncake-ts';

/** The MooncakeError with which `call` fails; any other error passes through. */
export async function failureOf(call: () => Promise<unknown>): Promise<MooncakeError> {
  try {
    await call();
  } catch (error) {
    if (error instanceof MooncakeError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}
